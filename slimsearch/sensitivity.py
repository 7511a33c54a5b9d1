"""How much each matrix matters, from one pass over the dense model, forwards and back.

To second order a change dy of a matrix's output costs 1/2 E[(g . dy)^2] of loss, g being the
loss's gradient there. Over directions that do not know of g this is |g|^2 |dy|^2 / 2 rows, and
sum |dy|^2 / 2 is the error that every pruned level carries already: their product, per token,
predicts what a level costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slimsearch.vlm import IGNORED, VLM, Batch, Calibrated

SHARE = 0.25  # of the calibration that gradients are taken on
BATCH_TOKENS = 1024  # a backward pass holds every block's activations


@dataclass(frozen=True)
class Sensitivity:
    """By matrix: mean squared gradient per predicted token and output, and input norms."""

    texts: Mapping[str, float]
    pairs: Mapping[str, float]
    inputs: Mapping[str, Tensor]  # ||X_j|| of every input column, over both


def measure(vlm: VLM, calibrated: Calibrated) -> Sensitivity:
    """One pass over a quarter of the calibration; the model must be dense."""
    part = calibrated.part(SHARE)
    squares = {m.name: torch.zeros(m.columns, device=vlm.device) for m in vlm.matrices}
    with _noting_inputs(vlm, squares):
        texts, pairs = _gradients(vlm, part.texts), _gradients(vlm, part.pairs)
    return Sensitivity(texts, pairs, {name: total.sqrt() for name, total in squares.items()})


def _gradients(vlm: VLM, batches: Sequence[Batch]) -> dict[str, float]:
    """Mean over predicted tokens of |dloss/dy|^2 / rows, for every matrix."""
    sums = {matrix.name: torch.zeros((), device=vlm.device) for matrix in vlm.matrices}
    predicted = 0
    with _noting_gradients(vlm, sums):
        for batch in batches:
            for rows in batch.split(max(1, BATCH_TOKENS // batch.ids.shape[1])):
                embeds = vlm.embed(rows).detach().requires_grad_()
                with torch.enable_grad():
                    vlm.loss(rows, embeds=embeds).backward()
                predicted += int((rows.targets != IGNORED).sum())
    return {m.name: float(sums[m.name]) / max(predicted, 1) / m.rows for m in vlm.matrices}


@contextmanager
def _noting_gradients(vlm: VLM, sums: dict[str, Tensor]) -> Iterator[None]:
    def note(name: str, module: nn.Module, given: Any, out: Any) -> None:
        sums[name] += out[0].float().square().sum()

    hooks = [vlm.linear(name).register_full_backward_hook(partial(note, name)) for name in sums]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _noting_inputs(vlm: VLM, squares: dict[str, Tensor]) -> Iterator[None]:
    def note(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        squares[name] += args[0].detach().float().square().flatten(0, -2).sum(0)

    hooks = [vlm.linear(name).register_forward_pre_hook(partial(note, name)) for name in squares]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
