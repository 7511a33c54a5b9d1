"""The projector step: AdamW on sum_m c_m L_m(W_p) over the pairs.

L is the cross-entropy of the answers or, where lessons are given, the distance to the dense model.
Each gradient step takes one candidate, drawn evenly in proportion to the weights c_m, and one
batch of pairs: an unbiased and cheap estimate of the whole sum. The rate warms up, then falls to
nothing along a cosine within every step of the search. The last batches of pairs are held back:
the weights that did best on them under the round's best candidate are kept, or the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch import Tensor

from slimsearch import lessons
from slimsearch.candidate import ProjectorStep
from slimsearch.errors import is_out_of_memory
from slimsearch.lessons import Lesson
from slimsearch.vlm import IGNORED, VLM, Batch

HELD_SHARE = 0.2  # of the calibration pairs, never trained on
LOOK = 25  # gradient steps between two looks at the held-back pairs
PATIENCE = 2  # looks in a row that may bring nothing
WARM_UP = 0.1  # of the gradient steps
STEP_TOKENS = 512  # of pairs that a gradient step reads at most
PARTS = 10  # that pairs are divided into at least, so that some can be held back


@dataclass(frozen=True)
class Course:
    """What a step trains under: candidates and `best`, each put on the model when called."""

    candidates: Sequence[Callable[[], None]]
    weights: Sequence[float]  # how often each candidate's turn comes
    best: Callable[[], None]  # judges on the pairs that are held back
    steps: int  # of the gradient
    random: np.random.Generator

    @staticmethod
    def as_it_stands(steps: int, seed: Sequence[int]) -> Course:
        """Under the one policy that is on the model already."""
        return Course([lambda: None], [1.0], lambda: None, steps, np.random.default_rng(seed))


class ProjectorTrainer:
    """Holds the projector in fp32 with its optimiser; the model carries a rounded copy."""

    def __init__(self, vlm: VLM, pairs: Sequence[Batch], rate: float, dense: VLM | None = None):
        """`dense` says what is to be learnt; without it, it is the answers of the pairs."""
        parts = _parts(pairs)
        held = max(1, round(len(parts) * HELD_SHARE)) if len(parts) > 1 else 0
        self._vlm = vlm
        self._rate = rate
        self.version = 0  # of the weights that are on the model; 0 is the original
        order = np.random.default_rng(0).permutation(len(parts))
        self._training = [parts[i] for i in order[held:]]
        self._held = [parts[i] for i in order[:held]]
        self._lessons = lessons.learn(dense, self._training) if dense is not None else []
        self._held_lessons = lessons.learn(dense, self._held) if dense is not None else []
        self._weights = vlm.projector_state()
        self._optimiser = torch.optim.AdamW(
            [weight.requires_grad_() for weight in self._weights.values()],
            lr=rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )

    @property
    def possible(self) -> bool:
        """Whether there is a projector, and pairs to train and to judge it on."""
        return bool(self._weights and self._training and self._held)

    def step(self, course: Course) -> ProjectorStep:
        """Trains in place."""
        start = self.state()
        try:
            return self._try(start, course)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.load(start)
            return ProjectorStep(None, None, kept=False, note="out of memory")

    def _try(self, start: dict[str, Tensor], course: Course) -> ProjectorStep:
        """The step itself; goes back to `start` where it does not help."""
        kept, steps = start, course.steps
        course.best()
        before = after = least = self._judged()
        batches = self._shuffled(course.random)
        on, in_vain = -1, 0  # the candidate on the model; looks that brought nothing
        for done, index in enumerate(_turns(course), 1):
            if index != on:
                course.candidates[index]()
                on = index
            if not self._descend(*next(batches), self._rate * _schedule(done, steps)):
                self.load(start)
                return ProjectorStep(before, None, kept=False, note="the gradient was not finite")
            if done % LOOK and done < steps:
                continue
            self._vlm.set_projector(self._detached())
            course.best()
            on, after = -1, self._judged()
            if after < least:
                kept, least, in_vain = self.state(), after, 0
            elif (in_vain := in_vain + 1) == PATIENCE:
                break
        self.load(kept)
        if least < before:
            return ProjectorStep(before, least, kept=True)
        return ProjectorStep(before, after, kept=False, note="did not help on held-out pairs")

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser moments as flat tensors, fit for a safetensors file."""
        found = {f"weight.{name}": weight.clone() for name, weight in self._detached().items()}
        moments = self._optimiser.state_dict()["state"]
        for index, name in enumerate(self._weights):
            for key, value in moments.get(index, {}).items():
                found[f"{key}.{name}"] = value.clone()
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes back to a state, on the trainer and on the model."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(state[f"weight.{name}"])
        whole = self._optimiser.state_dict()
        whole["state"] = {
            index: {
                key: state[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
            }
            for index, name in enumerate(self._weights)
            if f"step.{name}" in state
        }
        self._optimiser.load_state_dict(whole)
        self._vlm.set_projector(self._detached())

    def _judged(self) -> float:
        """What is to be lowered, on the pairs that are held back."""
        if not self._held_lessons:
            return self._vlm.mean_loss(self._held)
        with torch.no_grad():
            apart = [lessons.distance(self._vlm, lesson).item() for lesson in self._held_lessons]
        return sum(apart) / len(apart)

    def _shuffled(self, random: np.random.Generator) -> Iterator[tuple[Batch, Lesson | None]]:
        """Training batches without end, every one once before any comes again."""
        while True:
            for index in random.permutation(len(self._training)):
                yield self._training[index], self._lessons[index] if self._lessons else None

    def _descend(self, batch: Batch, lesson: Lesson | None, rate: float) -> bool:
        """One gradient step on one batch; False where the gradient is not finite."""
        targets = int((batch.targets != IGNORED).sum())
        with torch.enable_grad():
            if lesson is None:
                loss = self._vlm.loss(batch, self._rounded()) / max(targets, 1)
            else:
                loss = lessons.distance(self._vlm, lesson, self._rounded())
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(self._weights.values()), 1.0)
        if not bool(torch.isfinite(norm)):
            return False
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        return True

    def _rounded(self) -> dict[str, Tensor]:
        """The weights in training, in the model's dtype."""
        return {name: weight.to(self._vlm.dtype) for name, weight in self._weights.items()}

    def _detached(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self._weights.items()}


def _parts(pairs: Sequence[Batch]) -> list[Batch]:
    """The pairs in batches small enough to step on."""
    share = sum(len(batch.ids) for batch in pairs) // PARTS
    return [
        part
        for batch in pairs
        for part in batch.split(max(1, min(STEP_TOKENS // batch.ids.shape[1], share)))
    ]


def _schedule(done: int, steps: int) -> float:
    """The share of the rate at the `done`-th of `steps` gradient steps."""
    warm = max(1, round(WARM_UP * steps))
    return min(1.0, done / warm) * (1 + cos(pi * max(0, done - warm) / (steps - warm + 1))) / 2


def _turns(course: Course) -> list[int]:
    """The candidate of each gradient step."""
    drawn = _systematic(course.weights, course.steps, course.random)
    return _together(drawn, course.random)


def _systematic(weights: Sequence[float], count: int, random: np.random.Generator) -> np.ndarray:
    """`count` indices drawn in proportion to weights, spread as evenly as they can be."""
    marks = (np.arange(count) + random.random()) / max(count, 1)
    return np.minimum(np.searchsorted(np.cumsum(weights), marks), len(weights) - 1)


def _together(drawn: np.ndarray, random: np.random.Generator) -> list[int]:
    """Equal indices side by side, so that each candidate is put on once; else in random order."""
    place = random.permutation(int(drawn.max(initial=0)) + 1)
    return sorted(drawn.tolist(), key=lambda index: place[index])
