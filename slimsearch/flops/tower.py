"""A vision tower's sizes, and those of the projector behind it, for one picture or one tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from slimsearch.contracts import Architecture


@dataclass(frozen=True)
class Tower:
    """A vision tower that reads pictures, or tiles of them, of one size."""

    tokens: int  # in the tower, for one picture
    patches: int
    embedding: int  # weights of the patch embedding
    layers: int
    width: int
    matrices: int  # weights that every token of the tower meets
    projector: int  # weights that every token of the decoder's meets
    visual: int  # tokens that the decoder is given for one picture
    tiles: bool = False  # what is said of a picture is of one of its tiles


def tower_of(model: Any, config: Any, architecture: Architecture) -> Tower:
    """The tower of a model that stands on torch's meta device."""
    vision = config.vision_config
    tower = model.model.get_encoder(modality="image")
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
    tokens = patches + bool(classes)
    with torch.no_grad():
        if architecture.tiles:
            given = _of_tile(model.model, config, tokens, architecture.projectors[0])
        else:
            given = _of_picture(model.model, _sides(vision.image_size))
    return Tower(
        tokens=tokens,
        patches=patches,
        embedding=sum(layer.weight.numel() for layer in embedding),
        layers=vision.num_hidden_layers,
        width=vision.hidden_size,
        matrices=sum(layer.weight.numel() for layer in linear),
        projector=sum(
            weight.numel()
            for path in architecture.projectors
            for weight in model.model.get_submodule(path).parameters()
            if weight.ndim == 2
        ),
        visual=given.numel() // given.shape[-1],
        tiles=architecture.tiles,
    )


def _of_picture(model: Any, sides: tuple[int, int]) -> torch.Tensor:
    """What the decoder is given for a picture."""
    given = model.get_image_features(pixel_values=torch.empty(1, 3, *sides, device="meta"))
    found = getattr(given, "pooler_output", given)
    return found if torch.is_tensor(found) else found[0]


def _of_tile(model: Any, config: Any, tokens: int, projector: str) -> torch.Tensor:
    """What the projector makes of a tile, before tiles are put together."""
    chosen = getattr(config, "vision_feature_select_strategy", "full")
    tokens -= chosen == "default"  # without the class token
    features = torch.empty(1, tokens, config.vision_config.hidden_size, device="meta")
    return model.get_submodule(projector.partition(".")[0])(features)


def _sides(size: Any) -> tuple[int, int]:
    """Height and width, given as one number or as two."""
    return (size, size) if isinstance(size, int) else tuple(size)
