"""What the dense model says next, wherever a pruned one is to follow it.

A question about a picture holds more than its answer: after every word of it the dense model
expects some words and not others, and it does so with the picture in view. Kept are its likeliest
tokens; all others count as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimsearch.vlm import IGNORED, PADDING, VLM, Batch

TOP = 32  # tokens that are kept of each distribution


@dataclass(frozen=True)
class Lesson:
    """One batch of pairs with what the dense model says at every text position after the picture.

    `positions` are counted over the whole batch, in the order of its rows.
    """

    batch: Batch
    where: Tensor  # [rows, length], whether a position is learnt from
    answers: Tensor  # [positions], whether what follows belongs to an answer
    tokens: Tensor  # [positions, TOP], the likeliest tokens
    chances: Tensor  # [positions, TOP + 1], their log-probabilities, and that of all the others


@torch.no_grad()
def learn(dense: VLM, batches: Sequence[Batch]) -> list[Lesson]:
    """What this model, which is not pruned yet, says to each batch."""
    return [_lesson(dense, batch) for batch in batches]


def distance(vlm: VLM, lesson: Lesson, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """How far a model is from the dense one: its divergence on answers, plus that on the rest.

    Each is the mean over its positions of KL(dense || pruned).
    """
    logs = vlm.logits(_hidden(vlm, lesson.batch, lesson.where, weights)).log_softmax(-1)
    apart = (lesson.chances.exp() * (lesson.chances - _kept(logs, lesson.tokens))).sum(-1)
    parts = (apart[lesson.answers], apart[~lesson.answers])
    return torch.stack([part.mean() for part in parts if len(part)]).sum()


def _lesson(dense: VLM, batch: Batch) -> Lesson:
    where = _after_picture(batch, dense.picture_token)
    logs = dense.logits(_hidden(dense, batch, where, None)).log_softmax(-1)
    tokens = logs.topk(min(TOP, logs.shape[-1] - 1), dim=-1).indices
    answers = (batch.targets != IGNORED)[where]
    return Lesson(batch, where, answers, tokens, _kept(logs, tokens))


def _after_picture(batch: Batch, picture_token: int) -> Tensor:
    """Positions after the whole picture that predict a token of text, [rows, length]."""
    pictured = batch.ids == picture_token
    shown = pictured.cumsum(1) == pictured.sum(1, keepdim=True)
    follows = torch.zeros_like(pictured)
    follows[:, :-1] = batch.classes[:, 1:] != PADDING
    return shown & follows


def _hidden(vlm: VLM, batch: Batch, where: Tensor, weights: Mapping[str, Tensor] | None) -> Tensor:
    return vlm.hidden(vlm.given(batch, weights))[where]


def _kept(logs: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of the kept tokens, and of all the others together."""
    kept = logs.gather(-1, tokens)
    others = (1 - kept.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log()
    return torch.cat([kept, others], -1)
