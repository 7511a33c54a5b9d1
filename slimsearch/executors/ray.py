"""Scores candidates side by side in workers of a Ray cluster, or of this machine alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import heappop, heappush
from importlib.util import find_spec

import torch

from slimsearch.contracts import Executor
from slimsearch.errors import SettingsError
from slimsearch.executors._cluster import connected, resources
from slimsearch.executors._worker import Answer, Job
from slimsearch.executors._workers import Lost, Workers
from slimsearch.record.candidate import Candidate, Score, failed
from slimsearch.searching.evaluate import Evaluator

AHEAD = 2  # candidates for each worker that are under way, or wait for an earlier one to be told

if find_spec("ray") is None:
    raise SettingsError(
        "executor = 'ray' needs Ray, which is not installed: pip install 'slimsearch[ray]', or "
        "use --executor local."
    )


@dataclass
class Ray(Executor):
    ray_address: str = ""
    ray_workers: int = 0
    ray_cpus: int = 0
    ray_gpus: float = -1.0
    ray_retries: int = 2
    ray_patience: int = 600
    _open: ExitStack = field(default_factory=ExitStack, init=False)
    _workers: Workers | None = field(default=None, init=False)

    def score(
        self,
        candidates: Sequence[Candidate],
        evaluator: Evaluator,
        projector: int,
        known: Mapping[str, Sequence[Score]],
        share: float = 1.0,
    ) -> Iterator[Score]:
        if not candidates:
            return
        if self._workers is None:
            self._workers = self._hired(evaluator)
        self._workers.teach(projector, evaluator)
        jobs = [Job(c, tuple(known.get(c.name, ())), share, projector) for c in candidates]
        for score, raised in self._answers(jobs, self._workers):
            evaluator.store.raised |= raised
            yield score

    @property
    def ready(self) -> int:
        """How many workers have built their evaluator."""
        return self._workers.ready if self._workers else 0

    def take_notes(self) -> list[str]:
        if self._workers is None:
            return []
        taken, self._workers.notes = self._workers.notes, []
        return taken

    def close(self) -> None:
        self._workers = None
        self._open.close()

    def _hired(self, evaluator: Evaluator) -> Workers:
        """Joins the cluster and lets workers build this evaluator."""
        gpus = self.ray_gpus
        if gpus < 0:
            gpus = float(evaluator.vlm.device.type == "cuda")
        threads = self.ray_cpus or torch.get_num_threads()
        cpus = self.ray_cpus or (1 if gpus else threads)
        here = (torch.cuda.device_count() if gpus else 0, os.cpu_count() or 1)
        count = self.ray_workers or _fitting(*here, gpus, cpus)
        self._open.enter_context(connected(self.ray_address, max(here[1], count * cpus), here[0]))
        if self.ray_address and not self.ray_workers:
            count = _fitting(*resources(), gpus, cpus)
        workers = Workers(evaluator, count, threads, cpus, gpus, self.ray_patience)
        self._open.callback(workers.close)
        return workers

    def _answers(self, jobs: Sequence[Job], workers: Workers) -> Iterator[Answer]:
        """In the order of the jobs, whichever is done first."""
        place_of = {job: place for place, job in enumerate(jobs)}
        waiting = list(range(len(jobs)))  # a heap: what died comes before what is new
        died = Counter[int]()
        done: dict[int, Answer] = {}
        for next_place in range(len(jobs)):
            while next_place not in done:
                most = next_place + AHEAD * workers.count
                while waiting and waiting[0] < most and workers.free:
                    workers.give(jobs[heappop(waiting)])
                for job, answer in workers.collect():
                    place = place_of[job]
                    died[place] += isinstance(answer, Lost)
                    if not isinstance(answer, Lost):
                        done[place] = answer
                    elif died[place] <= self.ray_retries:
                        heappush(waiting, place)
                    else:
                        done[place] = _given_up(job, answer), {}
            yield done.pop(next_place)


def _fitting(gpus: float, cpus: float, gpus_each: float, cpus_each: int) -> int:
    """How many workers fit, at least one."""
    return max(1, int(gpus / gpus_each if gpus_each else cpus / cpus_each))


def _given_up(job: Job, lost: Lost) -> Score:
    reason = f"every worker that tried it died, the last one so: {lost.reason}"
    return failed(job.candidate, job.projector, reason, job.share)
