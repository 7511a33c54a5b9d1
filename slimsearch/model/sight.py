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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimsearch.contracts import Architecture
from slimsearch.errors import ModelError
from slimsearch.routes.merging import Salience, attention_in, merged, salience
from slimsearch.routes.route import Merge
from slimsearch.routes.stand_in import standing_in


@dataclass(frozen=True)
class Look:
    """One picture that was looked at."""

    inputs: Mapping[str, Tensor]  # of the model; pixels as ones of that shape, which take no room
    given: tuple[Tensor, ...]  # what each projector was given, [pieces, ...]
    salience: Salience | None = None  # where tokens may be merged

    def to(self, device: torch.device) -> Look:
        """The same on another device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        given = tuple(tensor.to(device) for tensor in self.given)
        return Look(inputs, given, None if self.salience is None else self.salience.to(device))


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
        self._attention: Any = attention_in(self.tower, base.config)
        self.notes_salience = False  # so that what is looked at now can be merged later
        self._merge: Merge | None = None
        self._salience: Salience | None = None  # of the pictures that are being shown
        self._hooks: list[Any] = []
        ours = {id(module) for module in self.projectors.values()}
        self._blocks = [
            block
            for part in self.tower.modules()
            if isinstance(part, nn.ModuleList)
            for block in part
            if id(block) not in ours
        ]

    @property
    def classed(self) -> bool:
        """Whether the tower has a class token, by whose attention tokens can be merged."""
        return self._attention is not None

    def follow(self, merge: Merge | None) -> None:
        """Merges pictures' tokens from here on, or leaves them alone; what is merged away comes
        out of the projector as zeros, and nothing else does."""
        if merge == self._merge:
            return
        for hook in self._hooks:
            hook.remove()
        self._merge, self._hooks = merge, []
        if merge is not None:
            (projector,) = self.projectors.values()
            stay: list[Tensor] = []

            def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                assert self._salience is not None, "pictures were looked at without their salience"
                found, kept = merged(args[0], self._salience, merge)
                stay[:] = [kept]
                return found, *args[1:]

            def after(_: nn.Module, __: Any, made: Tensor) -> Tensor:
                nothing = (made == 0).all(-1, keepdim=True)  # all of its units may be off
                return (made + nothing * torch.finfo(made.dtype).tiny) * stay.pop().unsqueeze(-1)

            self._hooks = [
                *self._watched(),
                projector.register_forward_pre_hook(before),
                projector.register_forward_hook(after),
            ]

    def _watched(self) -> list[Any]:
        """Hooks that note the salience of what the tower looks at."""
        asked: dict[str, Tensor] = {}

        def note(name: str, made: Tensor) -> None:
            asked[name] = made
            if len(asked) == 2:
                heads = self._attention.num_heads
                self._salience = salience(asked.pop("q"), asked.pop("k"), heads)

        return [
            self._attention.get_submodule(f"{name}_proj").register_forward_hook(
                lambda _, __, made, name=name: note(name, made)
            )
            for name in ("q", "k")
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
                projector.register_forward_pre_hook(
                    lambda _, given, kept=kept: (kept, *given[1:]), prepend=True
                )
            )
        if self._merge is not None:
            self._salience = _side_by_side([look.salience for look in looks])
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
                lambda module, args: given.__setitem__(module, args[0]), prepend=True
            )
            for projector in self.projectors.values()
        ]
        notes = self.notes_salience or self._merge is not None
        hooks += self._watched() if notes and self._merge is None else []
        parameter = next(self.tower.parameters())
        try:
            self._base.get_image_features(**moved(stacked(pictures), parameter))
        finally:
            for hook in hooks:
                hook.remove()
        parts = [given[projector].chunk(len(pictures)) for projector in self.projectors.values()]
        seen = [None] * len(pictures)
        if notes and self._salience is not None:
            each = len(self._salience.keys) // len(pictures)
            seen = [
                self._salience.rows(slice(n * each, (n + 1) * each)) for n in range(len(pictures))
            ]
        return [
            Look(
                _without_pixels(moved(shown, parameter)),
                tuple(part[n] for part in parts),
                seen[n],
            )
            for n, shown in enumerate(pictures)
        ]


@contextmanager
def placing_pictures(folder: Path) -> Iterator[None]:
    """Says what is wrong where a picture takes other places in the text than the tower fills."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Image features and image tokens do not match"):
            raise
        raise ModelError(
            f"{folder}: what its processor puts into the text for pictures is not what its vision "
            f"tower makes of them ({error}). Correct patch_size, the size of pictures, "
            f"vision_feature_select_strategy or num_additional_image_tokens in its processor's "
            f"files, or copy them from the original model."
        ) from error


def stacked(pictures: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Inputs of several pictures as one; tiles and edges that one has and another has not are 0."""
    return {name: _together([shown[name] for shown in pictures]) for name in pictures[0]}


def moved(inputs: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    """Inputs on a parameter's device, numbers that are no counts in its dtype."""
    return {
        name: tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }


def _side_by_side(several: Sequence[Salience | None]) -> Salience | None:
    known = [one for one in several if one is not None]
    if len(known) < len(several):
        return None
    return Salience(
        _together([one.attention for one in known]), _together([one.keys for one in known])
    )


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
