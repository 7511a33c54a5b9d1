"""Walks the decoder block by block with the calibration's activations in hand.

At each stop the Hessians of matrices that share an input are ready, and the caller may prune them
before the walk goes on. With `pruned_inputs` the next block sees what the pruned ones now give, as
an exact sequential prune wants; without, it sees the dense model's, as the level store wants.
Only one block's Hessians and two blocks' activations are ever held; with `drift` the dense model's
activations go along beside the pruned one's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from slimsearch.model.batch import Batch
from slimsearch.model.vlm import VLM
from slimsearch.routes.kinds import PADDING, PROMPT, TEXT
from slimsearch.routes.passage import Passage
from slimsearch.routes.stand_in import standing_in
from slimsearch.surgery.hessian import Hessian

EVERY = 2  # the first batch of each source, and every so many after it, tell the drift
FEEDING = {"text": (TEXT,), "prompt": (PROMPT,), "both": (TEXT, PROMPT)}


@dataclass(frozen=True)
class Stop:
    """Matrices that share an input, such as q, k and v of a block, and its Hessian."""

    matrices: tuple[str, ...]
    hessian: Hessian


@dataclass(frozen=True)
class _Call:
    """How the decoder calls a block: what it adds to the hidden states first, what it passes on."""

    added: Tensor | None  # [rows, length, width]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def passage(self) -> Passage | None:
        """What the block is told of its tokens, where it runs a route."""
        return self.kwargs.get("passage")

    @property
    def apart(self) -> _Call:
        """The same for another model beside this one."""
        passage = self.passage
        return (
            self
            if passage is None
            else replace(self, kwargs={**self.kwargs, "passage": passage.twin})
        )

    def there(self, tokens: Tensor) -> Tensor:
        """What is said of each token [rows * length], of those alone that are being computed."""
        passage = self.passage
        if passage is None or passage.here is None:
            return tokens
        here, rows = passage.here, tokens.view(passage.kinds.shape)
        return (here.take(rows) & here.real).flatten()


@dataclass
class _Flow:
    """One batch on its way: hidden states [rows, length, width] and which tokens count."""

    hidden: Tensor
    counts: Tensor  # [rows * length]
    parts: Mapping[str, Tensor]  # calibration set -> those of `counts` that belong to it
    calls: Sequence[_Call]  # for each block
    dense: Tensor | None = None  # hidden states of the dense model, where this tells the drift


def walk(
    vlm: VLM,
    batches: Sequence[Batch],
    tokens: str,
    *,
    pruned_inputs: bool,
    true_sequential: bool = False,
    by_set: bool = False,
    drift: bool = False,
) -> Iterator[Stop]:
    """Yields every stop, first block to last; `by_set` fills the Hessians' parts too.

    `drift` fills their drift: how far pruned inputs are from the dense model's, told by some of
    the batches. It wants a block whole, so it does not go with `true_sequential`.

    `true_sequential` takes a fresh Hessian after each stage of a block has been pruned; otherwise
    all stages of a block see its unpruned self (SparseGPT's reference does the latter).
    """
    flows = [_start(vlm, batch, tokens, by_set) for batch in batches]
    read = Counter[str]()
    for flow, batch in zip(flows, batches, strict=True):
        if drift and read[batch.source] % EVERY == 0:
            flow.dense = flow.hidden
        read[batch.source] += 1
    stages = [tuple(stage) for stage in vlm.stages]
    for index, block in enumerate(vlm.blocks):
        passes = [(stage,) for stage in stages] if true_sequential else [tuple(stages)]
        outputs: list[Tensor] = []
        for some in passes:
            named = [tuple(f"blocks.{index}.{role}" for role in stage) for stage in some]
            hessians, outputs = _measure(vlm, block, index, flows, named)
            for matrices in named:
                yield Stop(matrices, hessians.pop(matrices[0]))
        for flow, output in zip(flows, outputs, strict=True):
            if pruned_inputs:
                output = _through(block, flow.calls[index], flow.hidden)
            flow.hidden = output


def part_name(source: str, kind: int) -> str:
    """A calibration set: a source, or the pictures and questions of its pairs by themselves."""
    return f"{source}, prompts" if kind == PROMPT else source


@torch.no_grad()
def _start(vlm: VLM, batch: Batch, tokens: str, by_set: bool) -> _Flow:
    """The batch as the first block receives it, and how every block is called.

    The decoder is run with blocks that give back zeros. So what arrives at a later block is what
    the decoder adds on the way, such as the picture features of DeepStack.
    """
    calls: list[_Call] = []

    def note(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        something = not calls or bool(hidden_states.any())
        calls.append(_Call(hidden_states if something else None, args, kwargs))
        return torch.zeros_like(hidden_states)

    with standing_in(vlm.decoder.layers, note):
        vlm.hidden(vlm.given(batch))
    parts = {
        part_name(batch.source, kind): (batch.classes == kind).flatten() for kind in FEEDING[tokens]
    }
    counts = torch.stack(list(parts.values())).any(0)
    assert not bool((counts & (batch.classes == PADDING).flatten()).any())
    hidden = calls[0].added
    assert hidden is not None
    calls[0] = replace(calls[0], added=None)
    return _Flow(hidden, counts, parts if by_set else {}, calls)


@torch.no_grad()
def _measure(
    vlm: VLM,
    block: nn.Module,
    index: int,
    flows: Sequence[_Flow],
    stages: Sequence[tuple[str, ...]],
) -> tuple[dict[str, Hessian], list[Tensor]]:
    """Hessians by each stage's first matrix, and the block's outputs, from one pass."""
    hessians = {
        stage[0]: Hessian.zeros(vlm.linear(stage[0]).in_features, vlm.device) for stage in stages
    }
    flow, call = flows[0], flows[0].calls[index]
    dense: dict[str, Tensor] = {}  # inputs of this flow in the dense model
    hooks = []
    for name, hessian in hessians.items():

        def add(
            _: nn.Module, args: tuple[Tensor, ...], name: str = name, hessian: Hessian = hessian
        ) -> None:
            inputs = args[0].flatten(0, -2)  # [rows * length, columns]
            counts = call.there(flow.counts)
            if flow.dense is not None and name not in dense:
                dense[name] = inputs[counts]
                return
            hessian.add(inputs[counts])
            if flow.dense is not None:
                hessian.add_drift(dense.pop(name), inputs[counts])
            for part, members in flow.parts.items():
                some = call.there(members)
                if bool(some.any()):
                    hessian.add_part(part, inputs[some])

        hooks.append(vlm.linear(name).register_forward_pre_hook(add))
    outputs = []
    try:
        for flow in flows:
            ahead, own = None, flow.calls[index]
            if flow.dense is not None:
                call = own.apart
                ahead = _through(block, call, flow.dense)
            call = own
            outputs.append(_through(block, call, flow.hidden))
            flow.dense = ahead
    finally:
        for hook in hooks:
            hook.remove()
    _take_any({name: some for name, some in hessians.items() if vlm.idle(name)}, flows)
    return hessians, outputs


def _take_any(idle: Mapping[str, Hessian], flows: Sequence[_Flow]) -> None:
    """Has matrices that no token goes through pruned by their weights alone: it does not matter."""
    for hessian in idle.values():
        inputs = torch.eye(len(hessian.matrix), device=hessian.matrix.device)
        hessian.add(inputs)
        for part in {part for flow in flows for part in flow.parts}:
            hessian.add_part(part, inputs)


@torch.no_grad()
def _through(block: nn.Module, call: _Call, hidden: Tensor) -> Tensor:
    output = block(hidden if call.added is None else hidden + call.added, *call.args, **call.kwargs)
    return output[0] if isinstance(output, tuple) else output
