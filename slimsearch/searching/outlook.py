"""What changes of a policy are foretold to cost, by the loss's gradient where that policy stands.

A candidate is stitched from a store that holds every matrix at every level, so that a change of
levels is a known change D of the weights. To second order it costs G . D and half of D F D, G being
the loss's gradient on the pruned model and F its curvature. One pass forwards and back gives G, and
with it the first part for every level of every matrix at once. For the second stands what the
levels' costs differ by: an OBS solution's error grows by what the change adds to it.
"""

from __future__ import annotations

from torch import Tensor

from slimsearch import footprint
from slimsearch.errors import SolverError, is_out_of_memory
from slimsearch.model.vlm import VLM
from slimsearch.record.candidate import Genes, Outlook
from slimsearch.searching import sensitivity
from slimsearch.searching.allocation import HOPELESS, LOSSES, Costs
from slimsearch.searching.evaluate import Evaluator
from slimsearch.searching.space import Space
from slimsearch.surgery.level_store import LevelStore

SHARE = 0.5  # of the calibration that gradients are taken on: strides fit themselves to less
FP32 = 4  # bytes of one number of a gradient


def look(space: Space, evaluator: Evaluator, genes: Genes, costs: Costs) -> Outlook:
    """The outlook from these genes, empty where gradients are not to be had; `costs` are what each
    choice was foretold to cost. The model keeps the policy."""
    if not _affordable(evaluator.vlm):
        return Outlook(genes)
    try:
        evaluator.put_on(space.decode(genes))
        slopes = _gradients(evaluator)
    except SolverError:  # a level that could not be solved
        return Outlook(genes)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Outlook(genes)
    if not all(bool(slope.isfinite().all()) for slope in slopes.values()):
        return Outlook(genes)
    along, away = [], []
    parts = space.parts(evaluator.vlm.body)
    for gene, part, now, some in zip(space.genes, parts, genes, costs, strict=True):
        changes = [cost - some[now] for cost in some]
        if part:
            found = (_along(evaluator.store, slopes, part, gene.choices[now], to)
                     for to in gene.choices)  # fmt: skip
            along.append(tuple(found))
            away.append(tuple(abs(change) for change in changes))
        else:  # how blocks run is no matter of degree: what it costs was measured
            along.append(tuple(changes))
            away.append((0.0,) * len(changes))
    return Outlook(genes, tuple(along), tuple(away))


def _affordable(vlm: VLM) -> bool:
    """Whether memory holds a gradient of every matrix, twice: of text and of pairs."""
    wanted = 2 * FP32 * sum(matrix.size for matrix in vlm.matrices)
    return wanted < footprint.free_bytes(vlm.device)


def _gradients(evaluator: Evaluator) -> dict[str, Tensor]:
    """Of what is to be lowered, by matrix."""
    some = evaluator.calibrated.part(SHARE)
    found: dict[str, Tensor] = {}
    for terms, batches in zip(LOSSES, (some.texts, some.pairs), strict=True):
        weight = sum(evaluator.weights.get(term, 0.0) for term in terms)
        if not (weight and batches):
            continue
        for name, gradient in sensitivity.gradients(evaluator.vlm, batches).items():
            weighed = gradient.mul_(weight)
            found[name] = found[name].add_(weighed) if name in found else weighed
    return found


def _along(
    store: LevelStore, slopes: dict[str, Tensor], part: tuple[str, ...], now: float, to: float
) -> float:
    """What the gradient says of a gene's matrices at another level."""
    try:
        return sum(
            float((slopes[m] * (store.weights(m, to).float() - store.weights(m, now))).sum())
            for m in part
            if to != now and m in slopes
        )
    except SolverError:  # a candidate that asks for it would fail
        return HOPELESS
