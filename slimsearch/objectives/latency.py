"""Milliseconds that the model as it stands takes in an engine, foretold from measured matrices.

Each matrix adds the time of its shape at its sparsity. The times are measured once for a machine
and a decoder's shape, and a run keeps those that it began with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimsearch.batch import Calibrated
from slimsearch.contracts import Term
from slimsearch.latency import stopwatch, table
from slimsearch.latency.table import Table
from slimsearch.latency.work import Work
from slimsearch.native import form
from slimsearch.vlm import VLM


@dataclass
class Latency(Term):
    is_cost = True

    latency_engine: str = "deepsparse"
    latency_phase: str = "prefill"
    latency_tokens: int = 256
    deepsparse_python: str = ""
    _table: Table | None = field(default=None, init=False)

    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        return self._times(vlm).predict(stopwatch.parts_of(vlm))

    def noted(self, vlm: VLM) -> dict[str, Any]:
        return self._times(vlm).as_dict()

    def recall(self, noted: Mapping[str, Any]) -> None:
        self._table = table.from_dict(noted)

    def _times(self, vlm: VLM) -> Table:
        if self._table is None:
            engine, _, int8 = self.latency_engine.partition("-")
            own = "float32" if engine == "deepsparse" else form.held_as(str(vlm.disk_dtype)[6:])
            work = Work(self.latency_phase, self.latency_tokens, engine, int8 or own)
            self._table = stopwatch.table_of(vlm, work, self.deepsparse_python)
        return self._table
