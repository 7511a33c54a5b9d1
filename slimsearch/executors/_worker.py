"""What travels to a worker, and the worker itself: an evaluator in a process of its own.

A worker reads the model from its folder, and is given everything else. Tensors travel as arrays
that Ray keeps once on each host: workers there share them and must not write into them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimsearch.contracts import Family, Term
from slimsearch.errors import ResourceError
from slimsearch.model import loading
from slimsearch.model.batch import Calibrated
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.record.candidate import Candidate, Score
from slimsearch.searching.evaluate import Evaluator
from slimsearch.surgery.level_store import LevelStore
from slimsearch.version import versions


@dataclass(frozen=True)
class Cargo:
    """All that an evaluator is made of; of the model, how to know it."""

    versions: Mapping[str, str]
    checkpoint: Checkpoint
    fingerprint: Mapping[str, str]  # of the checkpoint
    device: str  # its type
    dtype: str
    attention: str
    threads: int
    shares: tuple[float, ...]  # of the calibration, that are measured on
    store: LevelStore
    calibrated: Calibrated
    families: Mapping[str, Family]
    terms: Mapping[str, Term]
    weights: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Job:
    """A candidate to be scored."""

    candidate: Candidate
    known: tuple[Score, ...]  # what it scored before
    share: float
    projector: int


Answer = tuple[Score, dict[str, float]]  # and the dampings that had to be raised, by matrix


def cargo_of(evaluator: Evaluator, threads: int) -> Cargo:
    """What another process needs to build the same evaluator."""
    vlm = evaluator.vlm
    return Cargo(
        versions=versions(),
        checkpoint=vlm.checkpoint,
        fingerprint=vlm.checkpoint.fingerprint(),
        device=vlm.device.type,
        dtype=str(vlm.dtype).removeprefix("torch."),
        attention=vlm.attention,
        threads=threads,
        shares=evaluator.shares,
        store=evaluator.store,
        calibrated=evaluator.calibrated,
        families=evaluator.families,
        terms=evaluator.terms,
        weights=evaluator.weights,
    )


class Worker:
    """Scores one candidate after the other with an evaluator that it builds once."""

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None
        self._projector = -1  # the version on the model

    def build(self, cargo: list[Any]) -> None:
        """Builds the evaluator; `cargo` holds what fetches one, once it is known to be readable."""
        import ray

        cargo_ref, wanted = cargo
        _compare("versions", wanted, versions())
        found: Cargo = ray.get(cargo_ref)
        torch.set_num_threads(found.threads)
        try:
            _compare("model", found.fingerprint, found.checkpoint.fingerprint())
        except OSError as error:
            raise ResourceError(
                f"{found.checkpoint.folder} cannot be read on {_host()} ({error.strerror}). The "
                f"model folder must lie at the same place on every host of the cluster."
            ) from None
        vlm = loading.load(found.checkpoint, found.device, found.dtype, found.attention)
        found.store.attach(vlm)
        self._evaluator = Evaluator(
            vlm, found.store, found.calibrated.to(vlm.device), found.families, found.terms,
            found.weights, found.shares,
        )  # fmt: skip

    def score(self, job: Job, projector: Mapping[str, np.ndarray]) -> Answer:
        """The candidate's score under this projector."""
        evaluator = self._evaluator
        assert evaluator is not None
        if self._projector != job.projector:
            evaluator.vlm.set_weights({n: torch.tensor(w) for n, w in projector.items()})
            self._projector = job.projector
        score = evaluator.score(job.candidate, job.projector, job.known, job.share)
        return score, evaluator.store.take_raised()


@contextmanager
def tensors_shared() -> Iterator[None]:
    """Within the block tensors are handed to Ray as arrays, which it need not copy."""
    import ray.util

    ray.util.register_serializer(Tensor, serializer=_array, deserializer=_tensor)
    try:
        yield
    finally:
        ray.util.deregister_serializer(Tensor)


def _array(tensor: Tensor) -> tuple[np.ndarray, torch.dtype, tuple[int, ...]]:
    here = tensor.detach().cpu()
    if here.numel() and not any(here.stride()):  # one number, over and over
        here = here[(0,) * here.ndim]
    flat = here.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy(), flat.dtype, tuple(tensor.shape)


def _tensor(sent: tuple[np.ndarray, torch.dtype, tuple[int, ...]]) -> Tensor:
    array, dtype, shape = sent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the array cannot be written, and nobody will
        flat = torch.from_numpy(array).view(dtype)
    return flat.reshape(shape) if len(flat) == prod(shape) else flat.expand(shape)


def _compare(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuses a host that would not score as the others do."""
    differing = [k for k in sorted({*wanted, *found}) if wanted.get(k) != found.get(k)]
    if differing:
        said = ", ".join(f"{k} {found.get(k)} instead of {wanted.get(k)}" for k in differing[:3])
        raise ResourceError(
            f"{_host()} has another {what} than the process that searches: {said}. Make them the "
            f"same on every host of the cluster."
        )


def _host() -> str:
    import ray.util

    return f"Host {ray.util.get_node_ip_address()}"
