"""Milliseconds that the model as it stands takes in an engine, foretold from measured matrices.

Each matrix adds the time of its shape at its sparsity; where tokens pass by it, that share of it.
The times are measured once for a machine and a decoder's shape, and a run keeps those that it began
with. Merging takes what it takes of the calibration's pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slimsearch.contracts import Term
from slimsearch.flops import shape
from slimsearch.flops.measured_pass import measured_pass
from slimsearch.latency import stopwatch, table
from slimsearch.latency.meter import LatencyMeter
from slimsearch.latency.table import Table
from slimsearch.model.batch import Calibrated, saliences
from slimsearch.model.vlm import VLM
from slimsearch.routes import merging


@dataclass
class Latency(Term):
    is_cost = True

    latency_engine: str = "deepsparse"
    latency_phase: str = "prefill"
    latency_tokens: int = 256
    visual_tokens: int = -1
    deepsparse_python: str = ""
    _table: Table | None = field(default=None, init=False)

    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        parts = stopwatch.parts_of(vlm)
        if not vlm.route:
            return self._times(vlm).predict(parts)
        one = measured_pass(
            shape.read(vlm.checkpoint), self.latency_phase, self.latency_tokens, self.visual_tokens
        )
        if vlm.route.merge is not None and (seen := saliences(calibrated.pairs)):
            one = one.merged(merging.share(seen, vlm.route.merge))
        meter = LatencyMeter(self._times(vlm), one.read, len(vlm.blocks), one.sizes.size)
        return meter.whole(vlm.matrices, [p.sparsity for p in parts], one.traffic(vlm.route))

    def noted(self, vlm: VLM) -> dict[str, Any]:
        return self._times(vlm).as_dict()

    def recall(self, noted: Mapping[str, Any]) -> None:
        self._table = table.recalled(noted)

    def _times(self, vlm: VLM) -> Table:
        if self._table is None:
            engine, phase, tokens = self.latency_engine, self.latency_phase, self.latency_tokens
            work = stopwatch.work_of(vlm, engine, phase, tokens)
            self._table = stopwatch.table_of(vlm, work, self.deepsparse_python)
        return self._table
