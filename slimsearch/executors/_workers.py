"""The workers of a cluster as the search sees them: hired, given jobs, replaced when they die."""

from __future__ import annotations

import re
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from time import monotonic
from typing import Any

import torch

from slimsearch.errors import ResourceError
from slimsearch.executors import _worker
from slimsearch.executors._worker import Answer, Job, Worker
from slimsearch.searching.evaluate import Evaluator

LOOK = 1.0  # seconds after which the patience is looked at again
STILLBORN = 3  # workers in a row that may die before they are ready


@dataclass(frozen=True)
class Lost:
    """Instead of an answer: why the worker that had the job is gone."""

    reason: str


class Workers:
    """Each holds one job at most, so that little is lost with it and nothing piles up."""

    def __init__(
        self, evaluator: Evaluator, count: int, threads: int, cpus: int, gpus: float, patience: int
    ):
        import ray

        cargo = _worker.cargo_of(evaluator, threads)
        with _worker.tensors_shared():
            self._cargo = [ray.put(cargo), cargo.versions]
        self._kind: Any = ray.remote(Worker).options(
            num_cpus=cpus, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        self._patience = patience
        self._ready_at = monotonic()  # when a worker was last seen ready
        self._stillborn = 0
        self._idle: list[Any] = []
        self._busy: dict[Future[Any], tuple[Any, Job | None]] = {}  # None: still building
        self._projector: tuple[int, Any] = (-1, None)
        self.notes: list[str] = []
        for _ in range(count):
            self._hire()

    @property
    def count(self) -> int:
        """How many there are, ready or not."""
        return len(self._idle) + len(self._busy)

    @property
    def ready(self) -> int:
        """How many have built their evaluator."""
        return len(self._idle) + sum(job is not None for _, job in self._busy.values())

    @property
    def free(self) -> bool:
        """Whether one has nothing to do."""
        return bool(self._idle)

    def teach(self, version: int, evaluator: Evaluator) -> None:
        """Makes this the projector that later jobs are scored under."""
        import ray

        if version != self._projector[0]:
            state = {name: w.cpu().numpy() for name, w in evaluator.vlm.weights().items()}
            self._projector = version, ray.put(state)

    def give(self, job: Job) -> None:
        """Hands a job to a worker that is free."""
        worker = self._idle.pop(0)
        future = worker.score.remote(job, self._projector[1]).future()
        self._busy[future] = worker, job

    def collect(self) -> list[tuple[Job, Answer | Lost]]:
        """Waits a moment for answers; a worker that died over a job is replaced."""
        from ray.exceptions import RayError, RayTaskError

        found: list[tuple[Job, Answer | Lost]] = []
        for future in wait(self._busy, LOOK, FIRST_COMPLETED).done:
            worker, job = self._busy.pop(future)
            try:
                answer = future.result()
            except RayTaskError as error:
                cause = error.cause
                if not isinstance(cause, torch.AcceleratorError):  # else its GPU is what broke
                    raise cause from error
                lost = Lost(f"{type(cause).__name__}: {cause}")
            except RayError as error:
                lost = Lost(_reason(error))
            else:
                self._idle.append(worker)
                if job is None:
                    self._stillborn = 0
                else:
                    found.append((job, answer))
                continue
            self._replace(worker, job, lost)
            found += [(job, lost)] if job else []
        self._check_patience()
        return found

    def close(self) -> None:
        """Ends every worker."""
        import ray

        for worker in (*self._idle, *(worker for worker, _ in self._busy.values())):
            ray.kill(worker)
        self._idle, self._busy = [], {}

    def _hire(self) -> None:
        worker = self._kind.remote()
        self._busy[worker.build.remote(self._cargo).future()] = worker, None

    def _replace(self, worker: Any, job: Job | None, lost: Lost) -> None:
        import ray

        ray.kill(worker)
        over = f"over {job.candidate.name}" if job else "before it was ready"
        self._stillborn += job is None
        if job is not None or self._stillborn < STILLBORN:
            self._hire()
            self.notes.append(f"A worker died {over} and is replaced: {lost.reason}")
        elif self.count:
            self.notes.append(f"A worker died {over}, {self.count} go on: {lost.reason}")
        else:
            raise ResourceError(f"No worker comes to life: {lost.reason}")

    def _check_patience(self) -> None:
        if self.ready:
            self._ready_at = monotonic()
        elif monotonic() - self._ready_at > self._patience:
            raise ResourceError(
                f"No worker was ready within {self._patience} seconds. `ray status` says what the "
                f"cluster has; each takes what --ray-cpus and --ray-gpus say."
            )


def _reason(error: Exception) -> str:
    """The sentence of Ray's page that says why, without what differs from time to time."""
    first, _, rest = str(error).splitlines()[-1].partition(". ")
    kind = re.search(r"exit type: (\w+)", rest)
    return f"{first.rstrip('.')}{f' ({kind[1]})' if kind else ''}."
