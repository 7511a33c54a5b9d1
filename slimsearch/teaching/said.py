"""What the dense model says next, and how far another model is from saying it.

After every word it expects some tokens and not others. Kept are its likeliest; all others count as
one, so that thousands of positions fit where one position's whole vocabulary would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimsearch.model.batch import Batch
from slimsearch.model.vlm import VLM

TOP = 32  # tokens that are kept of each distribution


@dataclass(frozen=True)
class Said:
    """What the dense model says at some positions, in the order in which they are read."""

    tokens: Tensor  # [positions, TOP], the likeliest tokens
    chances: Tensor  # [positions, TOP + 1], their log-probabilities, and that of all the others

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> Said:
        """What it says at some of the positions."""
        return Said(self.tokens[start:stop], self.chances[start:stop])


@torch.no_grad()
def heard(dense: VLM, batch: Batch, where: Tensor) -> Said:
    """What a model that is not pruned yet says at some positions, `where` [rows, length]."""
    pieces = []
    for logs in _logs(dense, batch, where, None):
        tokens = logs.topk(min(TOP, logs.shape[-1] - 1), dim=-1).indices
        pieces.append(Said(tokens, _kept(logs, tokens)))
    return together(pieces)


def together(parts: Sequence[Said]) -> Said:
    """What was said at one place after the other."""
    return Said(
        torch.cat([part.tokens for part in parts]), torch.cat([part.chances for part in parts])
    )


def divergence(
    vlm: VLM,
    batch: Batch,
    where: Tensor,
    said: Said,
    weights: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """KL(dense || this model) at the same positions, [positions]; `weights` as in `VLM.given`."""
    apart, read = [], 0
    for logs in _logs(vlm, batch, where, weights):
        here = said.part(read, read + len(logs))
        read += len(logs)
        apart.append((here.chances.exp() * (here.chances - _kept(logs, here.tokens))).sum(-1))
    return torch.cat(apart)


def _logs(
    vlm: VLM, batch: Batch, where: Tensor, weights: Mapping[str, Tensor] | None
) -> Iterator[Tensor]:
    """Log-probabilities of the next token, [some positions, vocabulary], piece by piece."""
    hidden = vlm.hidden(vlm.given(batch, weights), weights)[where]
    for rows in hidden.split(vlm.logit_rows):
        yield vlm.logits(rows).log_softmax(-1)


def _kept(logs: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of the kept tokens, and of all the others together."""
    kept = logs.gather(-1, tokens)
    others = (1 - kept.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log()
    return torch.cat([kept, others], -1)
