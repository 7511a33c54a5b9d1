"""A run folder: what was chosen, the journal, projectors by round, the level store, the champion.

settings.toml   everything chosen          projectors/   one safetensors file for each round
journal.jsonl   the only truth             levels/       the level store
best.toml       the champion, a policy     model/        the champion as a model folder
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from slimsearch import files, settings
from slimsearch.candidate import Candidate, Genes, ProjectorStep, Round, Score
from slimsearch.errors import RunError
from slimsearch.journal import Journal, Record, read
from slimsearch.settings import Settings

FORMAT = 1
# What a run leaves that was stopped before its first line.
LEFTOVERS = {"lock", "projectors", "settings.toml", "journal.jsonl"}


class Run:
    """An open run folder. One process at a time holds it (a kernel lock)."""

    def __init__(self, folder: Path, lock: TextIO):
        self.folder = folder
        self._lock = lock
        try:
            self.journal = Journal(folder / "journal.jsonl")
        except BaseException:
            lock.close()
            raise
        self._scores = {
            (found.candidate, found.projector): found
            for record in self.journal.records
            if record["kind"] == "score"
            for found in [_score(record)]
        }

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.journal.close()
        self._lock.close()

    @property
    def start(self) -> Record:
        return self.journal.records[0]

    @property
    def finished(self) -> Record | None:
        """The last line of a run that ended, with its table."""
        return end_in(self.journal.records)

    def closed(self, index: int) -> Round | None:
        """A finished round, as the journal has it."""
        for record in self.journal.records:
            if record["kind"] == "round" and record["index"] == index:
                return _round(record)
        return None

    def score_of(self, candidate: Candidate, projector: int) -> Score | None:
        """A score that was already paid for."""
        found = self._scores.get((candidate.name, projector))
        if found is not None and found.genes != candidate.genes:
            raise RunError(
                f"{self.folder} holds a score of {candidate.name} for other genes than this search "
                f"proposes: journal and settings belong to different searches."
            )
        return found

    def add_score(self, score: Score) -> None:
        self.journal.append({"kind": "score", **asdict(score)})
        self._scores[score.candidate, score.projector] = score

    def add_round(self, done: Round) -> None:
        self.journal.append({"kind": "round", **asdict(done)})

    def add_end(self, facts: Mapping[str, Any]) -> None:
        self.journal.append({"kind": "end", **facts})

    def save_projector(self, version: int, state: Mapping[str, Tensor]) -> None:
        """Keeps a projector with its optimiser, hashed into the journal."""
        file = self._projector(version)
        files.write(file, save(dict(state), metadata={"format": "pt"}))
        self.journal.append({"kind": "projector", "version": version, "sha256": files.sha256(file)})

    def load_projector(self, version: int) -> dict[str, Tensor]:
        file = self._projector(version)
        wanted = [
            record["sha256"]
            for record in self.journal.records
            if record["kind"] == "projector" and record["version"] == version
        ]
        try:
            if not wanted or files.sha256(file) != wanted[-1]:
                raise RunError(f"{file} is not the file that the journal names; restore it.")
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file} cannot be read ({error}); restore it.") from None

    @property
    def levels(self) -> Path:
        """Where the level store is kept."""
        return self.folder / "levels"

    def add_levels(self) -> None:
        """Records that the level store is whole."""
        hashes = {file.name: files.sha256(file) for file in sorted(self.levels.iterdir())}
        self.journal.append({"kind": "levels", "sha256": hashes})

    def has_levels(self) -> bool:
        """Whether the level store is there, checked against the journal; an unfinished one goes."""
        wanted = next((r["sha256"] for r in self.journal.records if r["kind"] == "levels"), None)
        if wanted is None:
            files.remove(self.levels)
            return False
        for name, digest in wanted.items():
            file = self.levels / name
            if not file.is_file() or files.sha256(file) != digest:
                raise RunError(f"{file} is not the file that the journal names; restore it.")
        return True

    def save_best(self, text: str) -> Path:
        files.write(self.folder / "best.toml", text.encode())
        return self.folder / "best.toml"

    def _projector(self, version: int) -> Path:
        return self.folder / "projectors" / f"{version:04d}.safetensors"


def create(folder: Path, chosen: Settings, fingerprint: Mapping[str, Any]) -> Run:
    """A fresh run folder; one that exists is never overwritten."""
    check_free(folder)
    with files.writing(folder):
        (folder / "projectors").mkdir(parents=True, exist_ok=True)
    run = Run(folder, _locked(folder))
    files.write(folder / "settings.toml", settings.write(chosen).encode())
    run.journal.append({"kind": "start", "format": FORMAT, "fingerprint": dict(fingerprint)})
    return run


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Makes the folder before long work, so that a place that cannot be written shows at once."""
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty: it was there before
            folder.rmdir()
        raise


def check_free(folder: Path) -> None:
    """Refuses a folder that already holds something."""
    if folder.is_file():
        raise RunError(f"{folder} is a file; choose another folder with --out.")
    found = {file.name for file in folder.iterdir()} if folder.exists() else set()
    journal = folder / "journal.jsonl"
    begun = journal.exists() and journal.stat().st_size > 0
    if begun or found - LEFTOVERS:
        hint = f" To go on with it: slimsearch resume {folder}." if begun else ""
        raise RunError(f"{folder} already holds files.{hint} Choose another folder with --out.")


def reopen(folder: Path) -> Run:
    """An existing run, to go on with it."""
    check_folder(folder)
    run = Run(folder, _locked(folder))
    try:
        if not run.journal.records:
            raise RunError(f"{folder} stopped before it began; start it again.")
        _check_format(folder, run.start)
    except RunError:
        run.close()
        raise
    return run


def records_of(folder: Path) -> list[Record]:
    """The journal of a run that another process may be writing."""
    check_folder(folder)
    records, _ = read(folder / "journal.jsonl")
    if records:
        _check_format(folder, records[0])
    return records


def check_folder(folder: Path) -> None:
    """Refuses what is no run folder."""
    for name in ("settings.toml", "journal.jsonl"):
        if not (folder / name).is_file():
            raise RunError(
                f"{folder} is no run folder: it has no {name}. Give one that `run` made."
            )


def rounds_in(records: list[Record]) -> list[Round]:
    return [_round(record) for record in records if record["kind"] == "round"]


def scores_in(records: list[Record]) -> list[Score]:
    return [_score(record) for record in records if record["kind"] == "score"]


def end_in(records: list[Record]) -> Record | None:
    """The last line of a run that ended."""
    return next((record for record in records if record["kind"] == "end"), None)


def in_use(folder: Path) -> bool:
    """Whether a process holds this run now."""
    try:
        with (folder / "lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _locked(folder: Path) -> TextIO:
    """Holds the folder for this process; the kernel lets go of it when the process ends."""
    with files.writing(folder):
        handle = (folder / "lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise RunError(
            f"{folder} is in use by another process. Wait for it, or watch it with "
            f"slimsearch status {folder}."
        ) from None
    return handle


def _check_format(folder: Path, start: Record) -> None:
    if start.get("kind") != "start" or start.get("format") != FORMAT:
        raise RunError(
            f"{folder} has format {start.get('format')}, this slimsearch reads {FORMAT}; use the "
            f"release that wrote it."
        )


def _score(record: Record) -> Score:
    values = {key: value for key, value in record.items() if key != "kind"}
    total = inf if values["total"] is None else values["total"]
    genes: Genes = tuple(values["genes"])
    return Score(**{**values, "total": total, "genes": genes})


def _round(record: Record) -> Round:
    step = record["step"]
    return Round(
        index=record["index"],
        scores=tuple(_score(score) for score in record["scores"]),
        weights=tuple(record["weights"]),
        champion=_score(record["champion"]),
        projector=record["projector"],
        step=None if step is None else ProjectorStep(**step),
        seconds=record["seconds"],
    )
