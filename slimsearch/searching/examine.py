"""The final table: the same tasks and held-out data for every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from slimsearch.contracts import Task
from slimsearch.model.batch import Calibrated
from slimsearch.record.candidate import Row
from slimsearch.record.run import Run
from slimsearch.searching.parts import Loop, note_raised
from slimsearch.searching.watch import Watch


class Examiner:
    """Fills the final table: the same tasks and held-out data for every row.

    With a run, each row is kept in its journal and not measured twice.
    """

    def __init__(
        self,
        loop: Loop,
        tasks: Mapping[str, Task],
        held_out: Calibrated,
        watch: Watch,
        run: Run | None = None,
    ):
        self._loop, self._tasks, self._held_out = loop, tasks, held_out
        self._watch, self._run = watch, run
        self.rows: list[Row] = []

    def examine(self, name: str, put_on: Callable[[], object] = lambda: None) -> None:
        """Adds a row for the model as `put_on` leaves it."""
        if self._run is not None and (kept := self._run.history.rows.get(name)):
            self.rows.append(kept)
            return
        put_on()
        if self._run is not None:
            note_raised(self._loop, self._run, self._watch, f"row '{name}'")
        vlm, store = self._loop.evaluator.vlm, self._loop.evaluator.store
        with self._watch.stage("evaluation"):
            figures: dict[str, float] = {}
            for task in self._tasks.values():
                figures |= task.measure(vlm, self._held_out)
        self.rows.append(Row(name, store.sparsity(vlm), figures))
        if self._run is not None:
            self._run.add_row(self.rows[-1])
