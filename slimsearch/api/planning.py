"""What a run would prune, need and take, measured on one probe candidate.

The first block is solved at every level and put on the model, the terms are measured once, one
projector step and one picture of the projector's gradient are taken; the rest is multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

from slimsearch import footprint
from slimsearch.api import assembly, inputs
from slimsearch.api.assembly import Bench
from slimsearch.model.vlm import VLM
from slimsearch.policy import SPARSITY
from slimsearch.searching import outlook, polishing, race
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.surgery import level_store
from slimsearch.teaching.training import Course, Trainer

BACK = 3  # passes that one forwards and back takes as long as


@dataclass(frozen=True)
class Plan:
    model: str
    model_type: str
    blocks: int
    matrices: int
    parameters: int
    prunable: int
    levels: tuple[float, ...]
    genes: int
    store_bytes: int
    store_in: str  # where it is held while the search goes on: gpu, memory or disk
    peak_bytes: int
    candidates: int
    seconds: dict[str, float]

    def lines(self) -> list[tuple[str, str]]:
        levels = ", ".join(f"{level:g}" for level in self.levels)
        return [
            ("architecture", self.model_type),
            ("decoder blocks", str(self.blocks)),
            ("prunable matrices", str(self.matrices)),
            ("parameters", f"{self.parameters:,}"),
            ("prunable", f"{self.prunable:,} ({self.prunable / self.parameters:.0%})"),
            ("levels", levels or "none: nothing to search"),
            ("genes", str(self.genes)),
            ("candidates", f"{self.candidates}, and the survivors of each round again"),
            ("level store", self._kept()),
            ("peak memory, from the probe", _size(self.peak_bytes)),
        ]

    def _kept(self) -> str:
        if not self.store_bytes:
            return "none: every candidate is pruned exactly"
        held = {
            "gpu": "the same on the GPU",
            "memory": "the same in memory",
            "disk": "mapped: memory holds what is being read",
        }
        return f"{_size(self.store_bytes)} on disk, {held[self.store_in]}"

    def times(self) -> list[tuple[str, str]]:
        rows = [(stage, f"{seconds:.1f}") for stage, seconds in self.seconds.items()]
        return [*rows, ("in all", f"{sum(self.seconds.values()):.1f}")]


def plan(settings: Settings, watch: Watch) -> Plan:
    """Loads the model, measures a probe candidate, and estimates the whole run."""
    bench = assembly.load(inputs.gather(settings), watch)
    loop, vlm = bench.loop, bench.loop.evaluator.vlm
    family = loop.evaluator.families.get(SPARSITY)
    levels = loop.space.levels(family, vlm.body) if family is not None else {}
    store = 0 if settings.exact else level_store.expected_bytes(vlm, levels)
    seconds = _probe(bench, levels, watch)
    return Plan(
        model=settings.model,
        model_type=bench.given.checkpoint.model_type,
        blocks=len(vlm.blocks),
        matrices=len(vlm.matrices),
        parameters=sum(weight.numel() for weight in vlm.model.parameters()),
        prunable=sum(matrix.size for matrix in vlm.matrices),
        levels=tuple(sorted(set().union(*levels.values()))),
        genes=len(loop.space.genes),
        store_bytes=store,
        store_in=loop.evaluator.store.where,
        peak_bytes=_peak_bytes(vlm, 0 if loop.evaluator.store.where == "disk" else store),
        candidates=settings.rounds * settings.candidates,
        seconds=seconds,
    )


def _probe(bench: Bench, levels: dict[str, set[float]], watch: Watch) -> dict[str, float]:
    """Seconds by stage of a whole run, from one of everything."""
    loop, settings = bench.loop, bench.loop.settings
    evaluator, blocks = loop.evaluator, len(loop.evaluator.vlm.blocks)
    first = {matrix: wanted for matrix, wanted in levels.items() if matrix.startswith("blocks.0.")}
    with watch.stage("probe"):
        began = perf_counter()
        level_store.fill(
            evaluator.store, evaluator.vlm, loop.hessian_batches, first, loop.solver, loop.tokens,
            lambda: None, blocks=1,
        )  # fmt: skip
        block = perf_counter() - began
        began = perf_counter()
        chosen = levels if settings.exact else first
        evaluator.store.stitch(evaluator.vlm, {m: max(some) for m, some in chosen.items() if some})
        evaluator.measure()
        score = perf_counter() - began
        step, polish = _step_seconds(loop.trainer), _step_seconds(polishing.polisher(loop))
        evaluator.restore()
        began = perf_counter()
        for task in bench.tasks.values():
            task.measure(evaluator.vlm, bench.held_out)
        evaluation = perf_counter() - began
    racing = settings.candidates + (settings.survivors if loop.trainer else 0)
    counts = race.measurements(racing, loop.shares)
    added = [share - before for before, share in pairwise((0.0, *loop.shares))]
    round_ = sum(part * count for part, count in zip(added, counts, strict=True))
    ahead = loop.strategy.looks_ahead and not settings.exact
    rows = 3 + bool(loop.evaluator.calibrated.pairs) + bool(polishing.tuned(loop))
    return {
        "load": watch.seconds["load"],
        "level store": 0.0 if settings.exact else block * blocks,
        "outlook": ahead * BACK * outlook.SHARE * score * settings.rounds,
        "search": score * round_ * settings.rounds,
        "projector": step * settings.rounds * settings.projector_steps,
        "polish": polish * settings.final_steps,
        "finalists and baselines": (settings.finalists + rows - 2) * (block * blocks + score),
        "evaluation": evaluation * rows,
    }


def _step_seconds(trainer: Trainer | None) -> float:
    """Seconds of one gradient step."""
    if trainer is None:
        return 0.0
    before = trainer.state()
    began = perf_counter()
    trainer.step(Course.as_it_stands(2, [0]))
    seconds = (perf_counter() - began) / 2
    trainer.load(before)
    return seconds


def _peak_bytes(vlm: VLM, store: int) -> int:
    """What the probe took at its highest, and the blocks of a held store that it left out."""
    rest = round(store * (1 - 1 / len(vlm.blocks)))
    return footprint.peak_bytes(vlm.device.type) + rest


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
