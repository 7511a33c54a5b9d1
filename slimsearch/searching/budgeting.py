"""From settings to a budget: what the ratio is a share of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from slimsearch.budgets.bill import Meter, Spent
from slimsearch.contracts import Family
from slimsearch.errors import PolicyError
from slimsearch.flops import shape
from slimsearch.flops.measured_pass import MeasuredPass, measured_pass
from slimsearch.flops.meter import FlopMeter
from slimsearch.latency import stopwatch, table
from slimsearch.latency.meter import LatencyMeter
from slimsearch.model.batch import Batch, saliences
from slimsearch.model.vlm import VLM
from slimsearch.record.candidate import Genes
from slimsearch.routes import merging
from slimsearch.routes.route import Merge, plain
from slimsearch.routes.traffic import Traffic
from slimsearch.searching import space as spaces
from slimsearch.searching.space import Space
from slimsearch.settings import Settings

MERGE = "merge_tokens"


def budgeted(
    space: Space,
    families: Mapping[str, Family],
    settings: Settings,
    vlm: VLM,
    pairs: Sequence[Batch] = (),
    noted: Mapping[str, Any] | None = None,
) -> Space:
    """The space with the budget that the settings ask for.

    Merging takes what it takes of the pictures in `pairs`. `noted` is what `times` gave when a run
    began.
    """
    if settings.budget == "weights":
        return space
    phase, tokens = settings.latency_phase, settings.latency_tokens
    one = measured_pass(shape.read(vlm.checkpoint), phase, tokens, settings.visual_tokens)
    meter: Meter = FlopMeter(one.sizes)
    if settings.budget == "latency":
        work = stopwatch.work_of(vlm, settings.latency_engine, phase, tokens)
        python = settings.deepsparse_python
        kept = table.recalled(noted) if noted else stopwatch.table_of(vlm, work, python)
        meter = LatencyMeter(kept, one.read, len(vlm.blocks), one.sizes.size)
    seen = saliences(pairs)
    if MERGE in families and not seen:
        raise PolicyError(
            f"[{MERGE}] takes from a budget in {settings.budget} what it merges of the pictures "
            f"that are calibrated on, and there are none. Give --pairs, or --budget weights."
        )

    @cache
    def merged(merge: Merge) -> MeasuredPass:
        return one.merged(merging.share(seen, merge))

    def traffics(genes: Genes) -> list[Traffic]:
        route = spaces.route(space.decode(genes), families, vlm.body)
        return (merged(route.merge) if route.merge else one).traffic(route)

    dense = one.traffic(plain(len(vlm.blocks)))
    parts = space.parts(vlm.body)
    bill = Spent(space.genes, parts, vlm.matrices, traffics, dense, meter)
    return replace(space, budget=replace(space.budget, bill=bill))


def times(space: Space) -> dict[str, Any]:
    """What a budget measured of the machine, for the journal; nothing where it measured nothing."""
    bill = space.budget.bill
    meter = bill.meter if isinstance(bill, Spent) else None
    return meter.table.as_dict() if isinstance(meter, LatencyMeter) else {}
