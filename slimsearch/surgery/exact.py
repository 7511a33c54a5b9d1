"""A policy pruned exactly and sequentially: each block sees what the pruned ones before it give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from slimsearch.contracts import Solver
from slimsearch.model.batch import Batch
from slimsearch.model.vlm import VLM
from slimsearch.routes.route import Route
from slimsearch.surgery.level_store import DENSE, LevelStore, Packed, pack
from slimsearch.surgery.walk import walk


def prune_exactly(
    store: LevelStore,
    vlm: VLM,
    batches: Sequence[Batch],
    levels: Mapping[str, float],
    solver: Solver,
    tokens: str,
    advance: Callable[[], None] = lambda: None,
    true_sequential: bool = False,
    ridge: float = 0.0,
) -> dict[str, Packed]:
    """Prunes one policy block by block on pruned inputs, and leaves it on the model.

    With a `ridge` every matrix first follows the drift of its inputs (Hessian.follow), so that
    what earlier blocks lost is made up for; 0 prunes as SparseGPT was published.
    """
    store.restore(vlm)
    packed: dict[str, Packed] = {}
    stops = walk(
        vlm, batches, tokens,
        pruned_inputs=True, true_sequential=true_sequential, by_set=solver.by_set,
        drift=ridge > 0 and not true_sequential,
    )  # fmt: skip
    for stop in stops:
        wanted = [[level] if (level := levels.get(m, DENSE)) else [] for m in stop.matrices]
        dense = [stop.hessian.follow(store.dense(matrix), ridge) for matrix in stop.matrices]
        solved = solver.prune_together(dense, stop.hessian, wanted)
        for matrix, each in zip(stop.matrices, solved, strict=True):
            for pruned in each:
                packed[matrix] = pack(pruned, *vlm.dtypes)
                store.place(vlm, {matrix: packed[matrix]})
                if stop.hessian.raised:
                    store.raised[matrix] = stop.hessian.raised
            advance()
    return packed


class ExactStore(LevelStore):
    """A store that keeps nothing: what is asked of it is pruned anew, as published (--exact).

    The pairs' share of a Hessian comes through the projector, so that the same levels give other
    weights once the projector has moved.
    """

    def __init__(
        self,
        vlm: VLM,
        batches: Sequence[Batch],
        solver: Solver,
        tokens: str,
        true_sequential: bool,
        where: str = "memory",
    ):
        self._batches, self._solver, self._tokens = batches, solver, tokens
        self._true_sequential = true_sequential
        super().__init__(vlm, where)

    def attach(self, vlm: VLM) -> None:
        super().attach(vlm)
        self._batches = [batch.to(vlm.device) for batch in self._batches]
        self._last: tuple[dict[str, float], int, Route] = {}, vlm.changes, vlm.route

    def stitch(self, vlm: VLM, levels: Mapping[str, float]) -> int:
        """Prunes every matrix to its level in one sequential pass; returns how many it pruned."""
        wanted = {matrix: level for matrix, level in levels.items() if level != DENSE}
        asked = wanted, vlm.changes, vlm.route
        if not wanted:  # also the first thing that `prune_exactly` does
            self._last = asked
            return super().stitch(vlm, {})
        if self._last == asked:
            return 0
        prune_exactly(
            self, vlm, self._batches, wanted, self._solver, self._tokens,
            true_sequential=self._true_sequential,
        )  # fmt: skip
        self._last = asked
        return len(wanted)
