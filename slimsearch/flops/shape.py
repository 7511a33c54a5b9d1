"""A model's sizes, from its configuration: transformers lays it out, no weight is made or read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from slimsearch.model import loading
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.policy import Matrix
from slimsearch.routes.traffic import Spans


@dataclass(frozen=True)
class Tower:
    """A vision tower that reads pictures of one size, and the projector behind it."""

    tokens: int  # in the tower, for one picture
    patches: int
    embedding: int  # weights of the patch embedding
    layers: int
    width: int
    matrices: int  # weights that every token of the tower meets
    projector: int  # weights that every token of the decoder's meets
    visual: int  # tokens that the decoder is given for one picture


@dataclass(frozen=True)
class Shape:
    """What a count needs to know; sizes are numbers of weights."""

    matrices: tuple[Matrix, ...]
    spans: Spans  # by block, how many tokens one sees where the model slides
    heads: int
    key_heads: int
    head_width: int
    head: int  # the output head's weights, which the last token meets
    beside: int = 0  # of linear layers between embedding and blocks, and blocks and head
    itemsize: int = 2  # bytes of a key's or value's number
    tower: Tower | None = None
    unknown: str = ""  # why there is no tower to count though the model sees

    @property
    def size(self) -> int:
        """Weights of the decoder's prunable matrices."""
        return sum(matrix.size for matrix in self.matrices)


def read(checkpoint: Checkpoint) -> Shape:
    """The shape of a checkpoint; its folder may hold no more than a config.json."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    architecture = loading.architecture_of(checkpoint)
    config = loading.config_of(checkpoint)
    maker: Any = AutoModelForImageTextToText if architecture.sees else AutoModelForCausalLM
    with loading.quiet_transformers(), loading.refused(checkpoint), torch.device("meta"):
        model = maker.from_config(config).eval()
    text = config.get_text_config()
    decoder = model.get_decoder()
    paths = {role: path for stage in loading.stages_of(checkpoint) for role, path in stage.items()}
    heads = text.num_attention_heads
    inside = {id(layer) for layer in decoder.layers.modules() if isinstance(layer, nn.Linear)}
    tower, unknown = None, ""
    if architecture.plain:
        tower = _tower(model, config, architecture.projectors)
    elif architecture.sees:
        unknown = f"a {checkpoint.model_type} takes pictures of many sizes or in tiles"
    return Shape(
        matrices=tuple(
            Matrix(f"blocks.{index}.{role}", *block.get_submodule(path).weight.shape)
            for index, block in enumerate(decoder.layers)
            for role, path in paths.items()
        ),
        spans=_spans(text),
        heads=heads,
        key_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_width=getattr(text, "head_dim", None) or text.hidden_size // heads,
        head=model.get_output_embeddings().weight.numel(),
        beside=sum(
            layer.weight.numel()
            for layer in decoder.modules()
            if isinstance(layer, nn.Linear) and id(layer) not in inside
        ),
        itemsize=(config.dtype or text.dtype or torch.bfloat16).itemsize,
        tower=tower,
        unknown=unknown,
    )


def _spans(text: Any) -> Spans:
    """By block, where attention slides over the last so many tokens."""
    wide = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"] * text.num_hidden_layers
    return tuple(wide if "sliding" in kind else None for kind in kinds)


def _tower(model: Any, config: Any, projectors: tuple[str, ...]) -> Tower:
    vision = config.vision_config
    tower = model.model.get_encoder(modality="image")
    pixels = torch.empty(1, 3, *_sides(vision.image_size), device="meta")
    with torch.no_grad():
        given = model.model.get_image_features(pixel_values=pixels)
    patches = 1
    for side, patch in zip(_sides(vision.image_size), _sides(vision.patch_size), strict=True):
        patches *= side // patch
    classes = [name for name, _ in tower.named_parameters() if "class_emb" in name or "cls" in name]
    linear = [
        layer
        for part in tower.modules()
        if isinstance(part, nn.ModuleList)
        for layer in part.modules()
        if isinstance(layer, nn.Linear)
    ]
    embedding = [layer for layer in tower.modules() if isinstance(layer, nn.Conv2d)]
    return Tower(
        tokens=patches + bool(classes),
        patches=patches,
        embedding=sum(layer.weight.numel() for layer in embedding),
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        matrices=sum(layer.weight.numel() for layer in linear),
        projector=sum(
            weight.numel()
            for path in projectors
            for weight in model.model.get_submodule(path).parameters()
            if weight.ndim == 2
        ),
        visual=_rows(given),
    )


def _rows(given: Any) -> int:
    """How many tokens a picture becomes."""
    found = getattr(given, "pooler_output", given)
    found = found if torch.is_tensor(found) else found[0]
    return found.numel() // found.shape[-1]


def _sides(size: Any) -> tuple[int, int]:
    """Height and width, given as one number or as two."""
    return (size, size) if isinstance(size, int) else tuple(size)
