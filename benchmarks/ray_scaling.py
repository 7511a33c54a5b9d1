"""How the throughput of `--executor ray` grows from one worker to two, and what bounds it further.

    OMP_NUM_THREADS=1 python benchmarks/ray_scaling.py [--candidates 16]

Scores the same candidates of the demo model, each on all of the calibration, here, in one worker
and in two, with one thread each; the scores must be equal, bit for bit. Then a whole search here
says what a cluster does not share, and a model on paper what n GPUs make of a search:

    T(n) = serial + sent * ceil(log2(hosts)) / wire
           + rounds * sum over rungs r of max(ceil(m_r / n) * s_r * c, m_r * d)

c: seconds for a candidate on all of the calibration; m_r of them are measured on its share s_r
(race.py). d: seconds that handing one over costs the process that searches. serial: everything
that this process does alone (level store, projector steps, exact finish, table), Amdahl's part.
sent: bytes that each host is sent once, by hosts that have them, at `wire` bytes a second.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2
from time import perf_counter

import numpy as np
import torch
from ray import cloudpickle

from slimsearch import assembly, display, inputs, level_store, race
from slimsearch.api import Result, search
from slimsearch.candidate import Candidate, Score
from slimsearch.contracts import Executor
from slimsearch.executors import _worker
from slimsearch.executors.local import Local
from slimsearch.executors.ray import Ray
from slimsearch.loop import Loop
from slimsearch.settings import Settings
from slimsearch.watch import Watch

WIRE = 1.25e9  # bytes a second between hosts: 10 Gbit/s
GPUS_A_HOST = 8
SETTINGS = Settings()


@dataclass(frozen=True)
class Inputs:
    """What the model on paper takes in."""

    c: float
    d: float
    serial: float
    sent: int

    def seconds(self, n: int, candidates: int) -> tuple[float, float, float, float]:
        """Alone, sending, measuring, and what measuring would take if no worker ever waited."""
        shares = race.rungs(SETTINGS.racing)
        counts = race.measurements(candidates + SETTINGS.survivors, shares)
        rungs = list(zip(counts, shares, strict=True))
        waves = sum(max(ceil(m / n) * s * self.c, m * self.d) for m, s in rungs)
        even = sum(m * s * self.c / n for m, s in rungs)
        hosts = ceil(n / GPUS_A_HOST)
        sending = self.sent * ceil(log2(hosts)) / WIRE if hosts > 1 else 0.0
        return self.serial, sending, SETTINGS.rounds * waves, SETTINGS.rounds * even


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    loop = filled()
    candidates = drawn(loop, given.candidates)
    here, alone, _ = timed(Local(), loop, candidates)
    one, first, start = timed(Ray(ray_workers=1, ray_cpus=1), loop, candidates)
    two, second, _ = timed(Ray(ray_workers=2, ray_cpus=1), loop, candidates)
    assert alone == first == second, "the scores differ"
    count = len(candidates)
    rows = [
        ["here", f"{count / here:.2f}", f"{one / here:.2f}"],
        ["one worker", f"{count / one:.2f}", "1.00"],
        ["two workers", f"{count / two:.2f}", f"{one / two:.2f}"],
    ]
    display.grid("Candidates a second, one thread each", ("", "rate", "against one"), rows)
    with tempfile.TemporaryDirectory() as folder:
        result = search(Settings(out=f"{folder}/run"))
    serial = sum(result.seconds.values()) - result.seconds["search"]
    c = sum(score.seconds for score in alone) / count
    d = max(0.0, one - sum(score.seconds for score in first)) / count
    found = Inputs(c, d, serial, sent(loop))
    tell(found, loop, candidates[0], result, start)
    on_paper(found)


def filled() -> Loop:
    """The demo model with its level store."""
    loop = assembly.load(inputs.gather(SETTINGS), Watch()).loop
    vlm, store = loop.evaluator.vlm, loop.evaluator.store
    levels = loop.space.levels(loop.evaluator.families["layer_sparsity"], vlm.matrices)
    level_store.fill(
        store, vlm, loop.hessian_batches, levels, loop.solver, loop.tokens, lambda: None
    )
    return loop


def drawn(loop: Loop, count: int) -> list[Candidate]:
    """Candidates of random genes."""
    random = np.random.default_rng(0)
    found = []
    for number in range(1, count + 1):
        genes = tuple(int(random.integers(len(gene.choices))) for gene in loop.space.genes)
        found.append(Candidate(f"1-{number:02d}", genes, loop.space.decode(genes)))
    return found


def timed(
    executor: Executor, loop: Loop, candidates: Sequence[Candidate]
) -> tuple[float, list[Score], float]:
    """Seconds for all candidates once workers are ready, the scores, and seconds until then."""
    loop.evaluator.restore()
    began = perf_counter()
    list(executor.score(candidates[:1], loop.evaluator, 0, {}))
    start = perf_counter() - began
    while isinstance(executor, Ray) and executor.ready < executor.ray_workers:
        list(executor.score(candidates[:1], loop.evaluator, 0, {}))
    began = perf_counter()
    scores = list(executor.score(candidates, loop.evaluator, 0, {}))
    took = perf_counter() - began
    executor.close()
    return took, scores, start


def sent(loop: Loop) -> int:
    """Bytes that each host is sent once: level store, batches, all but the model."""
    return len(cloudpickle.dumps(_worker.cargo_of(loop.evaluator, 1)))


def tell(found: Inputs, loop: Loop, first: Candidate, result: Result, start: float) -> None:
    """The measured inputs."""
    job = len(cloudpickle.dumps(_worker.Job(first, None, 1.0, 0)))
    rows = [
        ["seconds a candidate, all of the calibration (c)", f"{found.c:.3f}"],
        ["seconds to hand one over (d)", f"{found.d:.4f}"],
        ["bytes of a job", f"{job:,}"],
        ["bytes of the level store", f"{loop.evaluator.store.bytes:,}"],
        ["bytes sent to each host", f"{found.sent:,}"],
        ["seconds to start Ray and a first worker", f"{start:.1f}"],
        ["seconds of the projector steps", f"{result.seconds['projector']:.1f}"],
        ["seconds of the exact finish", f"{result.seconds['finalists']:.1f}"],
        ["seconds of all that is not shared (serial)", f"{found.serial:.1f}"],
    ]
    display.grid("Measured", ("what", ""), rows)


def on_paper(found: Inputs) -> None:
    """The model: how much faster than one worker, for 16 candidates a round and for 8 a GPU."""
    rows = []
    for candidates_for in (lambda n: SETTINGS.candidates, lambda n: 8 * n):
        for n in (8, 64, 512):
            candidates = candidates_for(n)
            alone, sending, measuring, even = found.seconds(n, candidates)
            whole = alone + sending + measuring
            before = sum(found.seconds(1, candidates)[:3])
            parts = {
                "what one process does alone": alone,
                "sending": sending,
                "too few candidates, or handing them over": measuring - even,
                "measuring": even,
            }
            worst = max(parts, key=lambda name: parts[name])
            rows.append([
                str(n), str(candidates), f"{before / whole:.1f}",
                f"{alone / whole:.0%}", f"{even / whole:.0%}", worst,
            ])  # fmt: skip
    titles = ("GPUs", "candidates a round", "times as fast", "alone", "measuring", "bound by")
    display.grid("On paper, from these", titles, rows)


if __name__ == "__main__":
    main()
