"""LoRA beside the decoder's matrices, trained with a pruned model and merged into it; peft's door.

A matrix with zeros is adapted where it is not zero only, in training as in the merge: what is
written is what was trained, and every zero stays one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimsearch.errors import SettingsError
from slimsearch.model.vlm import VLM

if TYPE_CHECKING:
    from peft.tuners.lora import Linear

NAME = "default"  # what peft calls an adapter that was given no name
ALPHA = 2  # times the rank: how strongly an adapter speaks, as LLaVA's own LoRA has it


def check(rank: int, device_map: str) -> None:
    """Refuses what cannot be adapted, before anything is read."""
    if not rank:
        return
    if device_map:
        raise SettingsError(
            "lora_rank trains beside every block's matrices, and device_map moves those about. "
            "Leave out one of the two."
        )
    try:
        import peft  # noqa: F401
    except ImportError:
        raise SettingsError(
            "lora_rank needs peft. Install it: pip install 'slimsearch[lora]'."
        ) from None


@contextmanager
def adapted(vlm: VLM, rank: int, seed: int) -> Iterator[list[str]]:
    """The names of weights beside the decoder's matrices; afterwards they are merged into those."""
    if not rank:
        yield []
        return
    from peft import LoraConfig, inject_adapter_in_model

    places = {vlm.matrix_parameter(m.name).removesuffix(".weight"): m.name for m in vlm.matrices}
    config = LoraConfig(r=rank, lora_alpha=ALPHA * rank, target_modules=list(places))
    config._register_custom_module({nn.Linear: _sparing()})
    route = vlm.detours.route
    vlm.detours.leave()  # it stands before modules that now change
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, vlm.model)
    beside = {place: vlm.model.get_submodule(place) for place in places}
    vlm.adapters = dict(_named(beside, places))
    vlm.detours.follow(route)
    try:
        yield list(vlm.adapters)
    finally:
        vlm.detours.leave()
        _merge(vlm, beside)
        vlm.adapters = {}
        vlm.detours.follow(route)


def _named(beside: Mapping[str, Any], places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names and places of what is trained."""
    for place in beside:
        for side in ("lora_A", "lora_B"):
            yield f"{side}.{places[place]}", f"{place}.{side}.{NAME}.weight"


@torch.no_grad()
def _merge(vlm: VLM, beside: Mapping[str, Linear]) -> None:
    """Adds what was learnt to the matrices, and takes away what stood beside them."""
    for place, layer in beside.items():
        layer.merge()
        parent, _, name = place.rpartition(".")
        setattr(vlm.model.get_submodule(parent), name, layer.get_base_layer())


def _sparing() -> type[Linear]:
    """peft's adapter of a linear layer, but silent where the layer's weights are zero."""
    from peft.tuners.lora import Linear

    class Sparing(Linear):
        def __init__(self, base_layer: nn.Linear, *args: Any, **kwargs: Any):
            super().__init__(base_layer, *args, **kwargs)
            self.sparse = bool((base_layer.weight == 0).any())

        def get_delta_weight(self, adapter: str) -> Tensor:
            delta = super().get_delta_weight(adapter)
            base: Any = self.get_base_layer()
            delta = delta.to(base.weight.dtype)
            return delta * (base.weight != 0) if self.sparse else delta

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not self.sparse or self.merged:
                return super().forward(x, *args, **kwargs)
            base: Any = self.get_base_layer()
            return functional.linear(x, base.weight + self.get_delta_weight(NAME), base.bias)

    return Sparing
