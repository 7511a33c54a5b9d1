"""Policies that need no search: rules that spread the sparsity over the model.

uniform     every gene at the target
owl         less where inputs have outliers: the share of |W| ||X|| beyond OUTLYING times its mean
alpha       less where spectra have heavy tails (Hill's estimator), as AlphaPruning does
optimal     what costs the least loss, as the store's errors and the uniform policy's gradients
            predict it; 'optimal*3' lets answers about pictures weigh three times what they do in
            the objective
plain       as optimal, the blocks running as they did, where other genes could change that

A search begins with some of them, and each is a strategy, a baseline, by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from slimsearch.errors import SettingsError, SolverError
from slimsearch.model.batch import Calibrated
from slimsearch.policy import SPARSITY, Policy
from slimsearch.record.candidate import Genes, Hints
from slimsearch.searching import sensitivity
from slimsearch.searching.evaluate import Evaluator
from slimsearch.searching.sensitivity import Slope
from slimsearch.searching.space import Space

LOSSES = ("text_loss", "text_kl"), ("answer_loss", "answer_kl")  # terms that damage raises
OUTLYING = 5.0  # OWL's M
HOPELESS = 1e12  # the cost of what is not to be chosen: a level that could not be solved
SHARE = 0.25  # of the calibration that inputs and gradients are seen on
LEAST = 0.01  # of the dense model's loss: what the uniform policy is taken to add at least
SPREAD = 0.08  # OWL's lambda: how far a block may go from the target

Costs = tuple[tuple[float, ...], ...]  # gene x choice -> predicted loss


@dataclass(frozen=True)
class Ground:
    """What the rules look at: a space over a model, and what some of its calibration tells."""

    space: Space
    evaluator: Evaluator
    stored: bool  # the level store holds errors

    @cached_property
    def parts(self) -> list[tuple[str, ...]]:
        return self.space.parts(self.evaluator.vlm.body)

    @cached_property
    def inputs(self) -> Mapping[str, Tensor]:
        """Norms of the dense model's inputs, by matrix and column."""
        self.evaluator.restore()
        return sensitivity.inputs(self.evaluator.vlm, [*self._some.texts, *self._some.pairs])

    @cached_property
    def steepness(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """By matrix, what its error adds to the loss of text, and to that of answers.

        Gradients are the uniform policy's, and to scale: that policy is foretold to cost what it
        was measured to cost.
        """
        vlm, both = self.evaluator.vlm, (self._some.texts, self._some.pairs)
        self.evaluator.restore()
        dense = [vlm.mean_loss(batches) for batches in both]
        errors = self._put_on_uniform()
        slopes = [sensitivity.slope(vlm, batches) for batches in both]
        self.evaluator.restore()
        if not all(isfinite(value) for s in slopes for value in (s.loss, *s.squares.values())):
            errors = {}
            slopes = [sensitivity.slope(vlm, batches) for batches in both]
        text, answer = (_to_scale(*pair, errors) for pair in zip(slopes, dense, strict=True))
        return text, answer

    def costs(self, leaning: float = 1.0) -> Costs:
        """What each gene's choices are predicted to cost; answers weigh `leaning` times."""
        weights, (texts, pairs) = self.evaluator.weights, self.steepness
        text, answer = (sum(weights.get(term, 0.0) for term in terms) for terms in LOSSES)
        answer *= leaning
        power = {m: text * texts[m] + answer * pairs[m] for m in texts}
        return tuple(
            tuple(sum(power[m] * self._error(m, level) for m in part) for level in gene.choices)
            if part
            else tuple(max(spoken + leaning * shown, 0.0) for spoken, shown in self.harms[where])
            for where, (gene, part) in enumerate(zip(self.space.genes, self.parts, strict=True))
        )

    @cached_property
    def harms(self) -> dict[int, list[tuple[float, float]]]:
        """By gene that changes how blocks run, and choice: what that alone adds to the losses of
        text and of answers, measured on the least share of the calibration."""
        genes, found = self.space.genes, {}
        for where in (where for where, part in enumerate(self.parts) if not part):
            each = [self._losses(where, choice) for choice in range(len(genes[where].choices))]
            found[where] = [(some[0] - each[0][0], some[1] - each[0][1]) for some in each]
        self.evaluator.restore()
        return found

    def _losses(self, where: int, choice: int) -> tuple[float, float]:
        genes = tuple(choice if place == where else 0 for place in range(len(self.space.genes)))
        tables = self.space.decode(genes).tables
        self.evaluator.put_on(Policy({name: t for name, t in tables.items() if name != SPARSITY}))
        terms = self.evaluator.measure(share=min(self.evaluator.shares))
        weights = self.evaluator.weights
        text, answer = (sum(weights[t] * terms[t] for t in some if t in terms) for some in LOSSES)
        return text, answer

    @cached_property
    def _some(self) -> Calibrated:
        return self.evaluator.calibrated.part(SHARE)

    def _put_on_uniform(self) -> dict[str, float]:
        """The uniform policy's levels, and the errors they make; none where one cannot be had."""
        genes = _uniform(self, "uniform")
        table = self.space.decode(genes).table(SPARSITY)
        try:
            self.evaluator.put_on(Policy({SPARSITY: table}))
        except SolverError:
            self.evaluator.restore()
            return {}
        return {
            matrix: self._error(matrix, gene.choices[index])
            for gene, index, part in zip(self.space.genes, genes, self.parts, strict=True)
            for matrix in part
        }

    def _error(self, matrix: str, level: float) -> float:
        try:
            return self.evaluator.store.error(matrix, level)
        except SolverError:  # a candidate that asks for it would fail
            return HOPELESS


def gather(names: Sequence[str], ground: Ground) -> Hints:
    """What a strategy that names these allocations is told.

    A search without a store begins as published, with the uniform policy and random ones.
    """
    if not ground.stored and len(names) > 1:
        names = ("uniform",)
    if not any(ground.parts):  # no levels to spread
        names = [name for name in names if _rule(name) in ("uniform", "optimal")]
    if all(ground.parts):  # nothing else than levels
        names = [name for name in names if _rule(name) != "plain"]
    priced = any(_rule(name) in ("optimal", "plain") for name in names)
    found = {name: _RULES[_rule(name)](ground, name) for name in names}
    return Hints(found, ground.costs() if priced else ())


def _uniform(ground: Ground, _: str) -> Genes:
    return ground.space.budget.uniform(np.random.default_rng(0))


def _owl(ground: Ground, _: str) -> Genes:
    def outlying(matrix: str) -> float:
        power = ground.evaluator.store.dense(matrix).float().abs() * ground.inputs[matrix]
        return float((power > OUTLYING * power.mean()).float().mean())

    return _spread(ground, _by_block(ground, outlying))


def _alpha(ground: Ground, _: str) -> Genes:
    """The lower Hill's alpha, the heavier the tail, the better trained the block: keep more."""

    def lightness(matrix: str) -> float:
        return -_hill(ground.evaluator.store.dense(matrix).float())

    return _spread(ground, _by_block(ground, lightness))


def _optimal(ground: Ground, name: str) -> Genes:
    if not ground.stored:
        raise SettingsError(
            "Strategy 'optimal' reads the errors of the level store, and --exact has none. Leave "
            "out --exact, or take --strategy owl."
        )
    return ground.space.budget.cheapest(ground.costs(_leaning(name)))


def _plain(ground: Ground, name: str) -> Genes:
    costs = ground.costs(_leaning(name))
    return ground.space.budget.cheapest(
        [some if part else (some[0], *[HOPELESS] * (len(some) - 1))
         for some, part in zip(costs, ground.parts, strict=True)]
    )  # fmt: skip


_RULES = {
    "uniform": _uniform, "owl": _owl, "alpha": _alpha, "optimal": _optimal, "plain": _plain,
}  # fmt: skip


def _rule(name: str) -> str:
    return name.partition("*")[0]


def _leaning(name: str) -> float:
    return float(name.partition("*")[2] or 1)


def _to_scale(slope: Slope, dense: float, errors: Mapping[str, float]) -> dict[str, float]:
    """Squared gradients such that these errors cost what the loss has risen by from the dense."""
    foretold = sum(slope.squares[matrix] * error for matrix, error in errors.items())
    risen = max(slope.loss - dense, LEAST * dense)
    scale = risen / foretold if foretold > 0 and risen > 0 else 1.0
    return {matrix: scale * square for matrix, square in slope.squares.items()}


def _by_block(ground: Ground, measure: Callable[[str], float]) -> dict[str, float]:
    """The mean over each block's matrices."""
    found: dict[str, list[float]] = {}
    for part in ground.parts:
        for matrix in part:
            found.setdefault(_block(matrix), []).append(measure(matrix))
    return {block: float(np.mean(values)) for block, values in found.items()}


def _spread(ground: Ground, worth: Mapping[str, float]) -> Genes:
    """Ratios that fall as a block's worth rises, within SPREAD of the target and on budget."""
    values = np.array(list(worth.values()))
    width = float(np.ptp(values)) or 1.0
    offsets = {
        block: -2 * SPREAD * (value - values.min()) / width for block, value in worth.items()
    }
    middle = float(np.mean(list(offsets.values())))
    budget = ground.space.budget
    nearest = []
    for gene, part in zip(budget.genes, ground.parts, strict=True):
        if not part:
            nearest.append(0)
            continue
        offset = float(np.mean([offsets[_block(matrix)] for matrix in part])) - middle
        nearest.append(gene.nearest(budget.target + offset))
    return budget.repair(nearest, np.random.default_rng(0))


def _hill(weight: Tensor) -> float:
    """Hill's estimate of the power law's exponent, over the upper half of W W^T's eigenvalues."""
    narrow = weight if weight.shape[0] <= weight.shape[1] else weight.T
    powers = torch.linalg.eigvalsh(narrow @ narrow.T).clamp(min=1e-12)
    upper = powers[len(powers) // 2 :]
    return 1 + len(upper) / max(float((upper / upper[0]).log().sum()), 1e-12)


def _block(matrix: str) -> str:
    return matrix.rpartition(".")[0]
