"""The projector step: a few AdamW steps on sum_m c_m L_m(W_p) over the pairs.

Each gradient step takes one candidate, drawn evenly in proportion to the weights c_m, and one
batch of pairs: an unbiased and cheap estimate of the whole sum. The last batches of pairs are held
back; a step that does not lower their loss under the round's best candidate is reverted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from slimsearch.candidate import ProjectorStep
from slimsearch.vlm import IGNORED, VLM, Batch

HELD_SHARE = 0.2  # of the calibration pairs, never trained on


class ProjectorTrainer:
    """Holds the projector in fp32 with its optimiser; the model carries a rounded copy."""

    def __init__(self, vlm: VLM, pairs: Sequence[Batch], rate: float):
        held = max(1, round(len(pairs) * HELD_SHARE)) if len(pairs) > 1 else 0
        self._vlm = vlm
        self.version = 0  # of the weights that are on the model; 0 is the original
        order = np.random.default_rng(0).permutation(len(pairs))
        self._training = [pairs[i] for i in order[held:]]
        self._held = [pairs[i] for i in order[:held]]
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

    def step(
        self,
        candidates: Sequence[Callable[[], None]],
        weights: Sequence[float],
        best: Callable[[], None],
        steps: int,
        random: np.random.Generator,
    ) -> ProjectorStep:
        """Trains in place; `candidates` and `best` put a policy on the model when called."""
        saved = self.state()
        best()
        before = self._vlm.mean_loss(self._held)
        finite = True
        for index in np.sort(_systematic(weights, steps, random)):
            candidates[index]()
            batch = self._training[random.integers(len(self._training))]
            finite = finite and self._descend(batch)
        self._vlm.set_projector(self._detached())
        best()
        after = self._vlm.mean_loss(self._held)
        if finite and after < before:
            return ProjectorStep(before, after, kept=True)
        self.load(saved)
        note = "did not help on held-out pairs" if finite else "the gradient was not finite"
        return ProjectorStep(before, after, kept=False, note=note)

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

    def _descend(self, batch: Batch) -> bool:
        """One gradient step on one batch; False where the gradient is not finite."""
        targets = int((batch.targets != IGNORED).sum())
        with torch.enable_grad():
            loss = self._vlm.loss(batch, self._project) / max(targets, 1)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(self._weights.values()), 1.0)
        if not bool(torch.isfinite(norm)):
            return False
        self._optimiser.step()
        return True

    def _project(self, features: Tensor) -> Tensor:
        """The projector with the weights in training, cast to the model's dtype."""
        assert self._vlm.projector is not None
        weights = {name: weight.to(features.dtype) for name, weight in self._weights.items()}
        return functional_call(self._vlm.projector, weights, (features,))

    def _detached(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self._weights.items()}


def _systematic(weights: Sequence[float], count: int, random: np.random.Generator) -> np.ndarray:
    """`count` indices drawn in proportion to weights, spread as evenly as they can be."""
    marks = (np.arange(count) + random.random()) / max(count, 1)
    return np.minimum(np.searchsorted(np.cumsum(weights), marks), len(weights) - 1)
