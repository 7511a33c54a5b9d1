"""Policies pruned anew instead of stitched from the level store, and the baselines among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from slimsearch.policy import SPARSITY, Policy
from slimsearch.searching.parts import Loop
from slimsearch.surgery.exact import prune_exactly
from slimsearch.surgery.level_store import Packed

RIDGE = 3.0  # of 0.01 to 10, best on both text and pairs where it was tried


def uniform(loop: Loop) -> Policy:
    """The baseline: every prunable matrix at the same ratio; where the ratio is of what a decoder
    spends, at the one level that takes it."""
    if loop.settings.budget != "weights":
        return loop.space.decode(loop.space.budget.uniform(np.random.default_rng(0)))
    return Policy({SPARSITY: {"blocks.*": loop.settings.ratio}})


def prune_uniformly(loop: Loop) -> None:
    """Puts the baseline on the model, pruned exactly."""
    prune_policy(loop, uniform(loop), published=True)


def on_text(loop: Loop) -> Loop:
    """The same loop, its Hessians fed by the text segments alone."""
    return replace(loop, hessian_batches=loop.evaluator.calibrated.texts, tokens="text")


def prune_policy(
    loop: Loop,
    policy: Policy,
    advance: Callable[[], None] = lambda: None,
    published: bool = False,
) -> dict[str, Packed]:
    """Puts a policy on the model, its sparsity pruned exactly rather than stitched.

    `published` prunes as SparseGPT was, unless the settings ask for more.
    """
    evaluator, vlm = loop.evaluator, loop.evaluator.vlm
    evaluator.put_on(without_sparsity(policy))
    family = evaluator.families.get(SPARSITY)
    if family is None:
        return {}
    edits = family.edits(policy.table(SPARSITY), vlm.body)
    levels = {matrix: level for matrix, level in edits.items() if not vlm.idle(matrix)}
    return prune_exactly(
        evaluator.store,
        vlm,
        loop.hessian_batches,
        levels,
        loop.solver,
        loop.tokens,
        advance,
        loop.settings.true_sequential,
        _ridge(loop, published),
    )


def without_sparsity(policy: Policy) -> Policy:
    """What else a policy does: its sparsity is not stitched from the store, it is pruned."""
    return Policy({name: table for name, table in policy.tables.items() if name != SPARSITY})


def _ridge(loop: Loop, published: bool) -> float:
    """How far matrices are held back from following the drift of their inputs; 0: they do not."""
    chosen = loop.settings.drift_ridge
    as_published = published or loop.settings.exact or not loop.solver.mends
    return chosen if chosen >= 0 else 0.0 if as_published else RIDGE
