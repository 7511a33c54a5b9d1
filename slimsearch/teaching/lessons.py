"""What is to be learnt, from what, and how far a model still is from it.

To answer pairs as they are answered is a little; the dense model knows more, and says it after
every word of a question about a picture, or of a text. It says it of any picture, so that questions
are also asked about pictures that they were not written for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimsearch.model.batch import IGNORED, Batch
from slimsearch.model.sight import Look
from slimsearch.model.vlm import VLM
from slimsearch.routes.kinds import PADDING
from slimsearch.teaching import said
from slimsearch.teaching.said import Said

HELD_SHARE = 0.2  # of the batches, never trained on
STEP_TOKENS = 512  # that a lesson reads at most
PARTS = 10  # that batches are divided into at least, so that some can be held back


@dataclass(frozen=True)
class Lesson:
    """One batch: to be learnt are its targets, or what the dense model said after its pictures."""

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


def subject(batches: Sequence[Batch], dense: VLM | None = None, others: int = 0) -> Subject:
    """Batches in small lessons, always the same ones held back.

    `dense` is not pruned yet and says what is to be learnt, of so many other pictures too; without
    it, it is the targets.
    """
    parts = _parts(batches)
    held = max(1, round(len(parts) * HELD_SHARE)) if len(parts) > 1 else 0
    shuffled = [parts[i] for i in np.random.default_rng(0).permutation(len(parts))]
    training = shuffled[held:]
    if dense is not None:
        training = [*training, *_exchanged(training, dense, others)]
    judging, learning = (
        [Lesson(part, _heard(dense, part) if dense is not None else None) for part in some]
        for some in (shuffled[:held], training)
    )
    return Subject(learning, judging)


def distance(vlm: VLM, lesson: Lesson, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """How far a model is from what is to be learnt; `weights` stand in for those in training.

    That is the mean loss of the targets or, where the dense model said what it expects, the mean
    over positions of KL(dense || pruned): that on targets plus that on the rest.
    """
    batch = lesson.batch
    if lesson.said is None:
        targets = int((batch.targets != IGNORED).sum())
        return vlm.loss(batch, weights) / max(targets, 1)
    where = _after_pictures(batch, vlm)
    apart = said.divergence(vlm, batch, where, lesson.said, weights)
    answers = (batch.targets != IGNORED)[where]
    parts = (apart[answers], apart[~answers])
    return torch.stack([part.mean() for part in parts if len(part)]).sum()


def _parts(batches: Sequence[Batch]) -> list[Batch]:
    """The same rows in batches small enough to step on."""
    share = sum(len(batch.ids) for batch in batches) // PARTS
    return [
        part
        for batch in batches
        for part in batch.split(max(1, min(STEP_TOKENS // batch.ids.shape[1], share)))
    ]


def _exchanged(parts: Sequence[Batch], dense: VLM, others: int) -> list[Batch]:
    """The same conversations about so many other pictures each, where those are alike in shape."""
    found: list[Batch] = []
    shown = [row for part in parts for row in _shown(part, dense)]
    widest = max((len(part.ids) for part in parts), default=0)
    for away in range(widest, widest * others + 1, max(widest, 1)):
        start = 0
        for part in parts if away < len(shown) else ():
            rows = range(start, start + len(part.ids))
            shifted = [shown[(row + away) % len(shown)] for row in rows]
            if all(shown[row][1:] == other[1:] for row, other in zip(rows, shifted, strict=True)):
                found.append(replace(part, looks=tuple(look for look, *_ in shifted)))
            start += len(part.ids)
    return found


def _shown(batch: Batch, dense: VLM) -> list[tuple[Look, int, Any]]:
    """By row its picture, how many tokens that takes, and the shapes that it comes in."""
    taken = (batch.ids == dense.picture_token).sum(1).tolist() if batch.looks else []
    return [
        (
            look,
            count,
            ([x.shape for x in look.given], {k: x.shape for k, x in look.inputs.items()}),
        )
        for look, count in zip(batch.looks or (), taken, strict=True)
    ]


def _heard(dense: VLM, batch: Batch) -> Said:
    return said.heard(dense, batch, _after_pictures(batch, dense))


def _after_pictures(batch: Batch, vlm: VLM) -> Tensor:
    """Positions after the last picture that predict a token of text, [rows, length]."""
    follows = torch.zeros_like(batch.ids, dtype=torch.bool)
    follows[:, :-1] = batch.classes[:, 1:] != PADDING
    if batch.looks is None:
        return follows
    pictured = batch.ids == vlm.picture_token
    return follows & (pictured.cumsum(1) == pictured.sum(1, keepdim=True))
