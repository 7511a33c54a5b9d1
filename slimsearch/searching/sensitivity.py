"""How much each matrix matters: what comes in, how steep the loss is where it goes out, and which
way it falls.

To second order a change dy of a matrix's output costs 1/2 E[(g . dy)^2] of loss, g being the
loss's gradient there. Over directions that do not know of g this is |g|^2 |dy|^2 / 2 rows, and
sum |dy|^2 / 2 is the error that every pruned level carries already: their product tells, up to a
factor, what a level costs.

Gradients want a model that is pruned already. A dense one is sure of its answers: its gradients
there are next to nothing, however steep the loss gets once a little is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from slimsearch.model.batch import IGNORED, Batch
from slimsearch.model.vlm import VLM

BATCH_TOKENS = 1024  # a backward pass holds every block's activations


@dataclass(frozen=True)
class Slope:
    loss: float  # per predicted token
    squares: Mapping[str, float]  # by matrix: mean squared gradient per such token and output


def inputs(vlm: VLM, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """By matrix, ||X_j|| of every input column, in one pass."""
    squares = {m.name: torch.zeros(m.columns, device=vlm.device) for m in vlm.matrices}
    with _noting_inputs(vlm, squares), torch.no_grad():
        for rows in _few_rows(batches):
            vlm.predicting(rows, vlm.given(rows))
    return {name: total.sqrt() for name, total in squares.items()}


def slope(vlm: VLM, batches: Iterable[Batch]) -> Slope:
    """The model's loss as it stands, and its gradients: one pass, forwards and back."""
    sums = {matrix.name: torch.zeros((), device=vlm.device) for matrix in vlm.matrices}
    with _noting_gradients(vlm, sums):
        total, count = _back(vlm, batches)
    return Slope(
        total / count, {m.name: float(sums[m.name]) / count / m.rows for m in vlm.matrices}
    )


def gradients(vlm: VLM, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """By matrix, the loss's gradient per predicted token, [rows, columns] in fp32."""
    sums = {m.name: torch.zeros(m.rows, m.columns, device=vlm.device) for m in vlm.matrices}
    with _adding_gradients(vlm, sums):
        _, count = _back(vlm, batches)
    return {name: total.div_(count) for name, total in sums.items()}


def _back(vlm: VLM, batches: Iterable[Batch]) -> tuple[float, int]:
    """One pass, forwards and back: the summed loss, and how many tokens were predicted."""
    total, predicted = 0.0, 0
    for rows in _few_rows(batches):
        given = vlm.given(rows)
        given["inputs_embeds"] = given["inputs_embeds"].detach().requires_grad_()
        with torch.enable_grad():
            loss = vlm.loss(rows, given=given)
            loss.backward()
        total += loss.item()
        predicted += int((rows.targets != IGNORED).sum())
    return total, max(predicted, 1)


def _few_rows(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same rows in batches that a backward pass can hold."""
    for batch in batches:
        yield from batch.split(max(1, BATCH_TOKENS // batch.ids.shape[1]))


@contextmanager
def _noting_gradients(vlm: VLM, sums: dict[str, Tensor]) -> Iterator[None]:
    def note(name: str, module: nn.Module, given: Any, out: Any) -> None:
        sums[name] += out[0].float().square().sum()

    hooks = [vlm.linear(name).register_full_backward_hook(partial(note, name)) for name in sums]
    with _removed_after(hooks):
        yield


@contextmanager
def _adding_gradients(vlm: VLM, sums: dict[str, Tensor]) -> Iterator[None]:
    """By what goes in and what comes back, so that no weight has to want a gradient."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[name] = args[0].detach().flatten(0, -2)

    def add(name: str, module: nn.Module, given: Any, out: Any) -> None:
        sums[name] += out[0].flatten(0, -2).T @ seen.pop(name)

    hooks = [vlm.linear(name).register_forward_pre_hook(partial(keep, name)) for name in sums]
    hooks += [vlm.linear(name).register_full_backward_hook(partial(add, name)) for name in sums]
    with _removed_after(hooks):
        yield


@contextmanager
def _noting_inputs(vlm: VLM, squares: dict[str, Tensor]) -> Iterator[None]:
    def note(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        squares[name] += args[0].detach().float().square().flatten(0, -2).sum(0)

    hooks = [vlm.linear(name).register_forward_pre_hook(partial(note, name)) for name in squares]
    with _removed_after(hooks):
        yield


@contextmanager
def _removed_after(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
