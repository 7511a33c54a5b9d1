"""How candidates a second grow from 1 to 2 Ray workers, and what would bound them at 512 GPUs.

    python benchmarks/ray_scaling.py                the demo model, a core for each worker
    python benchmarks/ray_scaling.py --seconds 10   the paper model for candidates that take 10 s

Measured, in one process: candidates a second without Ray and by 1 and 2 workers, that they score
the same, the searching process's own seconds for each candidate (handing out, collecting, an fsync
of the journal), the bytes a worker is sent and how long it takes to be ready.

On paper, with these inputs: a round races m candidates on what each share s of the calibration adds
to the one before,

    seconds(n) = sum over s of max(ceil(m[s] / n) * t[s], m[s] * driver) + projector step

since a share's survivors are known only once all have been measured on it, and one process hands
out and journals. n GPUs are seconds(1) / seconds(n) times as fast.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

import torch

from slimsearch.api import assembly, inputs
from slimsearch.api.assembly import Bench
from slimsearch.contracts import Executor
from slimsearch.executors.local import Local
from slimsearch.executors.ray import Ray
from slimsearch.families.layer_sparsity import LayerSparsity
from slimsearch.record.candidate import Candidate, Score
from slimsearch.record.journal import Journal
from slimsearch.searching import race
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.surgery import level_store

GPUS = (8, 64, 512)


@dataclass(frozen=True)
class Inputs:
    """What the paper model is fed."""

    share_seconds: dict[float, float]  # of one candidate on what a share of the calibration adds
    driver: float  # seconds of the searching process for each candidate
    projector: float  # seconds of a round's projector step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=24, help="scored by each executor")
    parser.add_argument("--seconds", type=float, default=0, help="of a candidate; 0: as measured")
    parser.add_argument("--projector", type=float, default=0, help="seconds of a projector step")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    bench = made(given.candidates)
    found = measured(bench, given.candidates)
    if given.seconds:
        scale = given.seconds / sum(found.share_seconds.values())
        shares = {share: scale * taken for share, taken in found.share_seconds.items()}
        found = Inputs(shares, found.driver, given.projector)
    paper(found, bench.loop.shares)


def made(candidates: int) -> Bench:
    """The demo's search with its level store filled."""
    bench = assembly.load(
        inputs.gather(Settings(strategy="random", candidates=candidates)), Watch()
    )
    loop, vlm = bench.loop, bench.loop.evaluator.vlm
    family = loop.evaluator.families["layer_sparsity"]
    assert isinstance(family, LayerSparsity)
    levels = loop.space.levels(family, vlm.body)
    level_store.fill(
        loop.evaluator.store, vlm, loop.hessian_batches, levels, loop.solver, loop.tokens,
        lambda: None,
    )  # fmt: skip
    return bench


def measured(bench: Bench, count: int) -> Inputs:
    """Prints what is measured, and returns what the model needs of it."""
    loop = bench.loop
    drawn = enumerate(loop.strategy.ask()[:count])
    candidates = [Candidate(f"1-{n:02d}", genes, loop.space.decode(genes)) for n, genes in drawn]
    alone, wanted, _ = timed(Local(), bench, candidates)
    print(f"without Ray            {count / alone:6.2f} candidates a second")
    rates, driver = [], 0.0
    for workers in (1, 2):
        executor = Ray(ray_workers=workers, ray_cpus=1)
        began = time.perf_counter()
        timed(executor, bench, candidates[: 2 * workers])  # until all are ready
        while executor.ready < workers:
            timed(executor, bench, candidates[:workers])
        ready = time.perf_counter() - began
        taken, scores, driver = timed(executor, bench, candidates)
        executor.close()
        assert scores == wanted, "a worker scores otherwise"
        rates.append(count / taken)
        print(f"Ray, {workers} worker(s)       {rates[-1]:6.2f}, ready after {ready:.1f} s")
    print(f"2 workers are {rates[1] / rates[0]:.2f} times as fast as 1; all scored the same.")
    driver = (driver + journalled(wanted)) / count
    print(f"the searching process works {1000 * driver:.1f} ms for each candidate")
    print(f"a host is sent a level store of {loop.evaluator.store.bytes / 1e6:.1f} MB, once")
    taken = [timed(Local(), bench, candidates, share)[0] / count for share in loop.shares]
    pairs = zip(loop.shares, taken, strict=True)
    print("a candidate takes " + ", ".join(f"{t:.3f} s on {s:g}" for s, t in pairs))
    added = [after - before for before, after in pairwise((0.0, *taken))]
    return Inputs(dict(zip(loop.shares, added, strict=True)), driver, 0.0)


def timed(
    executor: Executor, bench: Bench, candidates: Sequence[Candidate], share: float = 1.0
) -> tuple[float, list[Score], float]:
    """Seconds, the scores, and the processor's seconds in this process."""
    began, own = time.perf_counter(), time.process_time()
    scores = list(executor.score(candidates, bench.loop.evaluator, 0, {}, share))
    return time.perf_counter() - began, scores, time.process_time() - own


def journalled(scores: Sequence[Score]) -> float:
    """Seconds to keep these in a journal."""
    with tempfile.TemporaryDirectory() as place:
        journal = Journal(Path(place) / "journal.jsonl")
        began = time.perf_counter()
        for score in scores:
            journal.append({"kind": "score", "candidate": score.candidate, "genes": score.genes,
                            "total": score.total, "terms": score.terms})  # fmt: skip
        taken = time.perf_counter() - began
        journal.close()
    return taken


def paper(given: Inputs, shares: Sequence[float]) -> None:
    """Prints how many times as fast a round is on paper."""
    for name, count in (
        ("22 candidates a round", lambda _: 22),
        ("8 candidates a GPU", lambda gpus: 8 * gpus),
    ):
        cells = [f"{gpus}: {speed_up(given, shares, gpus, count):.1f}" for gpus in GPUS]
        print(f"on paper, {name}: times as fast on {', '.join(cells)} GPUs")


def speed_up(
    given: Inputs, shares: Sequence[float], gpus: int, count: Callable[[int], int]
) -> float:
    racing = race.measurements(count(gpus), shares)

    def seconds(n: int) -> float:
        turns = zip(racing, shares, strict=True)
        return given.projector + sum(
            max(ceil(m / n) * given.share_seconds[s], m * given.driver) for m, s in turns
        )

    return seconds(1) / seconds(gpus)


if __name__ == "__main__":
    sys.exit(main())
