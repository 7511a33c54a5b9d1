"""Pictures: looked at once, and shown again whenever the projector has moved.

The vision tower is frozen, so what it gave the projector is kept. To show a picture again, the
model's own code runs with the tower's blocks passed over and the projector given what it was given
before. How a family cuts pictures into tiles, packs what comes out and puts it into the text stays
in transformers' hands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimsearch.contracts import Architecture
from slimsearch.stand_in import standing_in


@dataclass(frozen=True)
class Look:
    """One picture that was looked at."""

    inputs: Mapping[str, Tensor]  # of the model; pixels as ones of that shape, which take no room
    given: tuple[Tensor, ...]  # what each projector was given, [pieces, ...]

    def to(self, device: torch.device) -> Look:
        """The same on another device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Look(inputs, tuple(tensor.to(device) for tensor in self.given))


class Sight:
    """The vision side of a model: `base` is the model without its head."""

    def __init__(self, base: Any, architecture: Architecture):
        self.tower: nn.Module = base.get_encoder(modality="image")
        self.projectors: dict[str, nn.Module] = {}  # path in the base model -> module
        for path in architecture.projectors:
            found = base.get_submodule(path)
            several = isinstance(found, nn.ModuleList)
            for name, module in found.named_children() if several else [("", found)]:
                self.projectors[f"{path}.{name}" if several else path] = module
        self._base = base
        ours = {id(module) for module in self.projectors.values()}
        self._blocks = [
            block
            for part in self.tower.modules()
            if isinstance(part, nn.ModuleList)
            for block in part
            if id(block) not in ours
        ]

    @torch.no_grad()
    def look(self, pictures: Sequence[Mapping[str, Tensor]]) -> list[Look]:
        """Looks at pictures, given as the processor made them; those of equal shapes together."""
        looks: list[Look] = []
        start = 0
        while start < len(pictures):
            like = _shapes(pictures[start])
            stop = start + 1
            while stop < len(pictures) and _shapes(pictures[stop]) == like:
                stop += 1
            looks += self._look(pictures[start:stop])
            start = stop
        return looks

    @contextmanager
    def again(self, looks: Sequence[Look]) -> Iterator[dict[str, Tensor]]:
        """Gives the inputs that show these pictures again; meanwhile the tower does not compute."""
        hooks = []
        for place, projector in enumerate(self.projectors.values()):
            kept = _together([look.given[place] for look in looks])
            hooks.append(
                projector.register_forward_pre_hook(lambda _, given, kept=kept: (kept, *given[1:]))
            )
        try:
            with standing_in(self._blocks, _passed_over):
                yield stacked([look.inputs for look in looks])
        finally:
            for hook in hooks:
                hook.remove()

    def _look(self, pictures: Sequence[Mapping[str, Tensor]]) -> list[Look]:
        given: dict[nn.Module, Tensor] = {}
        hooks = [
            projector.register_forward_pre_hook(
                lambda module, args: given.__setitem__(module, args[0])
            )
            for projector in self.projectors.values()
        ]
        parameter = next(self.tower.parameters())
        try:
            self._base.get_image_features(**moved(stacked(pictures), parameter))
        finally:
            for hook in hooks:
                hook.remove()
        parts = [given[projector].chunk(len(pictures)) for projector in self.projectors.values()]
        return [
            Look(_without_pixels(moved(shown, parameter)), tuple(part[n] for part in parts))
            for n, shown in enumerate(pictures)
        ]


def stacked(pictures: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Inputs of several pictures as one; tiles and edges that one has and another has not are 0."""
    return {name: _together([shown[name] for shown in pictures]) for name in pictures[0]}


def moved(inputs: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    """Inputs on a parameter's device, numbers that are no counts in its dtype."""
    return {
        name: tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }


def _shapes(inputs: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in inputs.items()}


def _without_pixels(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.new_ones(()).expand(tensor.shape) if tensor.is_floating_point() else tensor
        for name, tensor in inputs.items()
    }


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along their first dimension, filled up with zeros along the others."""
    if len(tensors) == 1:
        return tensors[0]
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_filled(tensor, shape) for tensor in tensors])


def _filled(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    missing = [0] * 2 * len(shape)
    missing[1::2] = [want - have for want, have in zip(shape, tensor.shape[1:], strict=True)][::-1]
    return functional.pad(tensor, missing) if any(missing) else tensor


def _passed_over(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states
