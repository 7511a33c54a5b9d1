"""How much each matrix matters, from one pass over the dense model, forwards and, if asked, back.

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

from slimsearch.model.batch import IGNORED, Batch, Calibrated
from slimsearch.model.vlm import VLM

SHARE = 0.25  # of the calibration that gradients are taken on
BATCH_TOKENS = 1024  # a backward pass holds every block's activations


@dataclass(frozen=True)
class Sensitivity:
    """By matrix: mean squared gradient per predicted token and output, and input norms."""

    texts: Mapping[str, float]  # empty where no gradients were asked for, as `pairs` then is
    pairs: Mapping[str, float]
    inputs: Mapping[str, Tensor]  # ||X_j|| of every input column, over both


def measure(vlm: VLM, calibrated: Calibrated, *, gradients: bool = True) -> Sensitivity:
    """One pass over a quarter of the calibration; the model must be dense."""
    part = calibrated.part(SHARE)
    pass_over = _gradients if gradients else _forwards
    squares = {m.name: torch.zeros(m.columns, device=vlm.device) for m in vlm.matrices}
    with _noting_inputs(vlm, squares):
        texts, pairs = pass_over(vlm, part.texts), pass_over(vlm, part.pairs)
    return Sensitivity(texts, pairs, {name: total.sqrt() for name, total in squares.items()})


def _gradients(vlm: VLM, batches: Sequence[Batch]) -> dict[str, float]:
    """Mean over predicted tokens of |dloss/dy|^2 / rows, for every matrix."""
    sums = {matrix.name: torch.zeros((), device=vlm.device) for matrix in vlm.matrices}
    predicted = 0
    with _noting_gradients(vlm, sums):
        for rows in _few_rows(batches):
            given = vlm.given(rows)
            given["inputs_embeds"] = given["inputs_embeds"].detach().requires_grad_()
            with torch.enable_grad():
                vlm.loss(rows, given=given).backward()
            predicted += int((rows.targets != IGNORED).sum())
    return {m.name: float(sums[m.name]) / max(predicted, 1) / m.rows for m in vlm.matrices}


@torch.no_grad()
def _forwards(vlm: VLM, batches: Sequence[Batch]) -> dict[str, float]:
    """Passes through every matrix and learns nothing by itself."""
    for rows in _few_rows(batches):
        vlm.predicting(rows, vlm.given(rows))
    return {}


def _few_rows(batches: Sequence[Batch]) -> Iterator[Batch]:
    """The same rows in batches that a backward pass can hold."""
    for batch in batches:
        yield from batch.split(max(1, BATCH_TOKENS // batch.ids.shape[1]))


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
