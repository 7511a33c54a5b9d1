"""What is to be learnt, from what, and how far a model still is from it.

To answer pairs as they are answered is a little; the dense model knows more. After every word of a
question about a picture, or of a text, it expects some words and not others. Kept are its
likeliest tokens; all others count as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slimsearch.batch import IGNORED, PADDING, Batch
from slimsearch.vlm import VLM

TOP = 32  # tokens that are kept of each distribution
HELD_SHARE = 0.2  # of the batches, never trained on
STEP_TOKENS = 512  # that a lesson reads at most
PARTS = 10  # that batches are divided into at least, so that some can be held back


@dataclass(frozen=True)
class Said:
    """What the dense model says at every text position after a batch's pictures.

    `positions` are counted over the whole batch, in the order of its rows.
    """

    where: Tensor  # [rows, length], whether a position is learnt from
    answers: Tensor  # [positions], whether what follows is a target
    tokens: Tensor  # [positions, TOP], the likeliest tokens
    chances: Tensor  # [positions, TOP + 1], their log-probabilities, and that of all the others


@dataclass(frozen=True)
class Lesson:
    """One batch: to be learnt are its targets, or what the dense model said where it was asked."""

    batch: Batch
    said: Said | None


@dataclass(frozen=True)
class Subject:
    """Lessons of one kind: some to train on, the others to judge by."""

    training: Sequence[Lesson]
    held: Sequence[Lesson]

    @property
    def possible(self) -> bool:
        return bool(self.training and self.held)

    def shuffled(self, random: np.random.Generator) -> Iterator[Lesson]:
        """Training lessons without end, every one once before any comes again."""
        while True:
            for index in random.permutation(len(self.training)):
                yield self.training[index]

    @torch.no_grad()
    def judged(self, vlm: VLM) -> float:
        """What is to be lowered, on what is held back."""
        if self.held[0].said is None:
            return vlm.mean_loss([lesson.batch for lesson in self.held])
        return sum(distance(vlm, lesson).item() for lesson in self.held) / len(self.held)


def subject(batches: Sequence[Batch], dense: VLM | None = None) -> Subject:
    """Batches in small lessons, always the same ones held back.

    `dense` is not pruned yet and says what is to be learnt; without it, it is the targets.
    """
    parts = _parts(batches)
    held = max(1, round(len(parts) * HELD_SHARE)) if len(parts) > 1 else 0
    lessons = [Lesson(part, _said(dense, part) if dense is not None else None) for part in parts]
    order = np.random.default_rng(0).permutation(len(parts))
    return Subject([lessons[i] for i in order[held:]], [lessons[i] for i in order[:held]])


def distance(vlm: VLM, lesson: Lesson, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """How far a model is from what is to be learnt; `weights` stand in for those in training.

    That is the mean loss of the targets or, where the dense model said what it expects, the mean
    over positions of KL(dense || pruned): that on targets plus that on the rest.
    """
    if (said := lesson.said) is None:
        targets = int((lesson.batch.targets != IGNORED).sum())
        return vlm.loss(lesson.batch, weights) / max(targets, 1)
    logs = _logs(vlm, lesson.batch, said.where, weights)
    apart = (said.chances.exp() * (said.chances - _kept(logs, said.tokens))).sum(-1)
    parts = (apart[said.answers], apart[~said.answers])
    return torch.stack([part.mean() for part in parts if len(part)]).sum()


def _parts(batches: Sequence[Batch]) -> list[Batch]:
    """The same rows in batches small enough to step on."""
    share = sum(len(batch.ids) for batch in batches) // PARTS
    return [
        part
        for batch in batches
        for part in batch.split(max(1, min(STEP_TOKENS // batch.ids.shape[1], share)))
    ]


@torch.no_grad()
def _said(dense: VLM, batch: Batch) -> Said:
    where = _after_pictures(batch, dense)
    logs = _logs(dense, batch, where, None)
    tokens = logs.topk(min(TOP, logs.shape[-1] - 1), dim=-1).indices
    return Said(where, (batch.targets != IGNORED)[where], tokens, _kept(logs, tokens))


def _after_pictures(batch: Batch, vlm: VLM) -> Tensor:
    """Positions after the last picture that predict a token of text, [rows, length]."""
    follows = torch.zeros_like(batch.ids, dtype=torch.bool)
    follows[:, :-1] = batch.classes[:, 1:] != PADDING
    if batch.looks is None:
        return follows
    pictured = batch.ids == vlm.picture_token
    return follows & (pictured.cumsum(1) == pictured.sum(1, keepdim=True))


def _logs(vlm: VLM, batch: Batch, where: Tensor, weights: Mapping[str, Tensor] | None) -> Tensor:
    """Log-probabilities of the next token at some positions, [positions, vocabulary]."""
    hidden = vlm.hidden(vlm.given(batch, weights), weights)
    return vlm.logits(hidden[where]).log_softmax(-1)


def _kept(logs: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of the kept tokens, and of all the others together."""
    kept = logs.gather(-1, tokens)
    others = (1 - kept.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log()
    return torch.cat([kept, others], -1)
