"""A model's sizes, from its configuration: transformers lays it out, no weight is made or read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from slimsearch.flops.tower import Tower, tower_of
from slimsearch.model import loading
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.policy import Matrix
from slimsearch.routes.traffic import Spans


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
    if architecture.plain or architecture.tiles:
        tower = tower_of(model, config, architecture)
    elif architecture.sees:
        unknown = f"a {checkpoint.model_type} takes pictures of many sizes"
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
