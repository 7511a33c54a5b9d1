"""Training steps: AdamW on sum_m c_m L_m(W), of the projector over pairs, and of the last polish.

Each gradient step takes one candidate, drawn evenly in proportion to the weights c_m, and one
lesson of every subject: an unbiased and cheap estimate of the whole sum. The rate warms up, then
falls to nothing along a cosine within every step of the search. The weights that did best under
the round's best candidate on the lessons held back are kept, or the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch import Tensor

from slimsearch.errors import is_out_of_memory
from slimsearch.model.vlm import VLM
from slimsearch.record.candidate import ProjectorStep
from slimsearch.teaching import lessons
from slimsearch.teaching.lessons import Lesson, Subject

LOOK = 25  # gradient steps between two looks at the lessons held back
WARM_UP = 0.1  # of the gradient steps


@dataclass(frozen=True)
class Course:
    """What a step trains under: candidates and `best`, each put on the model when called."""

    candidates: Sequence[Callable[[], None]]
    weights: Sequence[float]  # how often each candidate's turn comes
    best: Callable[[], None]  # judges on the lessons held back
    steps: int  # of the gradient
    random: np.random.Generator

    @staticmethod
    def as_it_stands(steps: int, seed: Sequence[int]) -> Course:
        """Under the one policy that is on the model already."""
        return Course([lambda: None], [1.0], lambda: None, steps, np.random.default_rng(seed))


class Trainer:
    """Holds some of a model's tunable weights in fp32, with their optimiser.

    The model carries a rounded copy.
    """

    def __init__(
        self,
        vlm: VLM,
        rates: Mapping[str, float],
        subjects: Sequence[Subject],
        shares: Sequence[float] = (),
    ):
        """`rates` names the weights to train, each with its learning rate at its highest; `shares`
        say how much each subject counts, else all count alike."""
        self._vlm, self._rates = vlm, list(rates.values())
        both = zip(subjects, shares or [1.0] * len(subjects), strict=True)
        taught = [(subject, share) for subject, share in both if subject.possible]
        self._subjects, self._shares = [s for s, _ in taught], [share for _, share in taught]
        self.version = 0  # of the weights that are on the model; 0 is the original
        self._weights = vlm.weights(rates)
        kept = self._weights.keys() & vlm.matrix_parameters.keys()
        self._kept = {name: self._weights[name].detach() != 0 for name in kept}
        self._optimiser = torch.optim.AdamW(
            [{"params": [weight.requires_grad_()]} for weight in self._weights.values()],
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        )

    def step(self, course: Course, anew: Mapping[str, Tensor] | None = None) -> ProjectorStep:
        """Trains in place. With `anew`, weights to begin with in place of some of those that are
        there, what was learnt from them is kept whatever those could do."""
        start = self.state()
        try:
            return self._try(start, course, anew or {})
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.load(start)
            return ProjectorStep(None, None, kept=False, note="out of memory")

    def _try(
        self, start: dict[str, Tensor], course: Course, anew: Mapping[str, Tensor]
    ) -> ProjectorStep:
        """The step itself; goes back to `start` where it does not help."""
        kept, steps = start, course.steps
        course.best()
        before = after = least = self._judged()
        if anew:
            kept = start | {f"weight.{name}": weight for name, weight in anew.items()}
            self.load(kept)
            course.best()
            least = self._judged()
        shuffled = [subject.shuffled(course.random) for subject in self._subjects]
        on = -1  # the candidate on the model
        for done, index in enumerate(_turns(course), 1):
            if index != on:
                course.candidates[index]()
                on = index
            taken = [next(some) for some in shuffled]
            if not self._descend(taken, _schedule(done, steps)):
                self.load(start)
                return ProjectorStep(before, None, kept=False, note="the gradient was not finite")
            if done % LOOK and done < steps:
                continue
            self._vlm.set_weights(self._detached())
            course.best()
            on, after = -1, self._judged()
            if after < least:
                kept, least = self.state(), after
        self.load(kept)
        if least < before or anew:
            note = "" if least < before else "what was there before did better on held-out data"
            return ProjectorStep(before, least, kept=True, note=note)
        return ProjectorStep(before, after, kept=False, note="did not help on held-out data")

    @property
    def names(self) -> list[str]:
        """Of the weights that are trained."""
        return list(self._weights)

    def state(self, moments: bool = True) -> dict[str, Tensor]:
        """Weights and optimiser moments as flat tensors, fit for a safetensors file."""
        found = {f"weight.{name}": weight.clone() for name, weight in self._detached().items()}
        if not moments:
            return found
        learnt = self._optimiser.state_dict()["state"]
        for index, name in enumerate(self._weights):
            for key, value in learnt.get(index, {}).items():
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
        self._vlm.set_weights(self._detached())

    def _judged(self) -> float:
        """What is to be lowered, on the lessons held back."""
        both = zip(self._subjects, self._shares, strict=True)
        return sum(share * subject.judged(self._vlm) for subject, share in both)

    def _descend(self, taken: Sequence[Lesson], share: float) -> bool:
        """One gradient step on some lessons, at a share of the rates.

        False where the gradient is not finite.
        """
        self._optimiser.zero_grad(set_to_none=True)
        for lesson, counts in zip(taken, self._shares, strict=False):
            with torch.enable_grad():
                rounded = {name: w.to(self._vlm.dtype) for name, w in self._weights.items()}
                (counts * lessons.distance(self._vlm, lesson, rounded)).backward()
        for name, kept in self._kept.items():  # what was pruned stays pruned
            if (slope := self._weights[name].grad) is not None:
                slope.mul_(kept)
        norm = torch.nn.utils.clip_grad_norm_(list(self._weights.values()), 1.0)
        if not bool(torch.isfinite(norm)):
            return False
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = share * rate
        self._optimiser.step()
        return True

    def _detached(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self._weights.items()}


def _schedule(done: int, steps: int) -> float:
    """The share of the rates at the `done`-th of `steps` gradient steps."""
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
