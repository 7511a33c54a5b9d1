"""From settings to a budget: what the ratio is a share of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from slimsearch.budgets.bill import Meter, Spent
from slimsearch.contracts import Family
from slimsearch.flops import shape
from slimsearch.flops.measured_pass import measured_pass
from slimsearch.flops.meter import FlopMeter
from slimsearch.latency import stopwatch
from slimsearch.latency.meter import LatencyMeter
from slimsearch.model.vlm import VLM
from slimsearch.record.candidate import Genes
from slimsearch.routes.route import plain
from slimsearch.routes.traffic import Traffic
from slimsearch.searching import space as spaces
from slimsearch.searching.space import Space
from slimsearch.settings import Settings


def budgeted(space: Space, families: Mapping[str, Family], settings: Settings, vlm: VLM) -> Space:
    """The space with the budget that the settings ask for."""
    if settings.budget == "weights":
        return space
    phase, tokens = settings.latency_phase, settings.latency_tokens
    one = measured_pass(shape.read(vlm.checkpoint), phase, tokens, settings.visual_tokens)
    meter: Meter = FlopMeter(one.sizes)
    if settings.budget == "latency":
        work = stopwatch.work_of(vlm, settings.latency_engine, phase, tokens)
        times = stopwatch.table_of(vlm, work, settings.deepsparse_python)
        meter = LatencyMeter(times, one.read, len(vlm.blocks), one.sizes.size)

    def traffics(genes: Genes) -> list[Traffic]:
        return one.traffic(spaces.route(space.decode(genes), families, vlm.body))

    dense = one.traffic(plain(len(vlm.blocks)))
    parts = space.parts(vlm.body)
    bill = Spent(space.genes, parts, vlm.matrices, traffics, dense, meter)
    return replace(space, budget=replace(space.budget, bill=bill))
