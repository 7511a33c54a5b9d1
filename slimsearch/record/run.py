"""A run folder: what was chosen, the journal, projectors by round, the level store, the champion.

settings.toml   everything chosen          projectors/   one safetensors file for each step kept
journal.jsonl   the only truth             levels/       the level store
times.jsonl     how long things took       model/        the champion as a model folder
best.toml       the champion, a policy     front/        where several terms count: see fronts.py
samples/        pictures of sample answers
lock            held by the process that is at work
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from slimsearch import files, settings
from slimsearch.contracts import Term
from slimsearch.errors import RunError, SlimsearchError
from slimsearch.files import Seal
from slimsearch.model.vlm import VLM
from slimsearch.record import history
from slimsearch.record.candidate import Candidate, Hints, Outlook, ProjectorStep, Round, Row, Score
from slimsearch.record.history import FORMAT, JOURNAL, LOCK, SETTINGS, TIMES, History
from slimsearch.record.journal import Journal, Record
from slimsearch.settings import Settings

# What a run leaves that was stopped before its first line.
LEFTOVERS = {LOCK, "projectors", SETTINGS, JOURNAL, TIMES}
BUDGET = "budget"  # noted beside terms: no term is called so
PATIENCE = 0.5  # seconds to wait for the lock: `status` holds it for a moment


class Run:
    """An open run folder. One process at a time holds it (a kernel lock)."""

    def __init__(self, folder: Path, lock: int):
        self.folder = folder
        self._lock = lock
        self._journal = Journal(folder / JOURNAL)
        self.torn = self._journal.torn
        self.history = History(folder)
        try:
            for record, offset in self._journal.replay():
                self.history.take(record, offset)
        except RunError:
            self._journal.close()
            raise
        self.history.add_times()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def begun(self) -> bool:
        """Whether anything was found out yet."""
        return bool(self.history.scores or self.history.levels)

    def close(self) -> None:
        self._journal.close()
        os.close(self._lock)

    def score_of(self, candidate: Candidate, projector: int, share: float = 1.0) -> Score | None:
        """A score that was already paid for."""
        found = self.history.scores.get((candidate.name, projector, share))
        if found is None or found.genes == candidate.genes:
            return found
        if self.history.drift:
            return None
        raise RunError(
            f"{self.folder} holds a score of {candidate.name} for other genes than this search "
            f"proposes: journal and settings belong to different searches."
        )

    def add_score(self, score: Score) -> None:
        self._append({"kind": "score", **_timeless(asdict(score))})
        self.history.scores[score.candidate, score.projector, score.share] = score  # not twice
        self.add_time("score", score.candidate, score.seconds)

    def add_hints(self, hints: Hints) -> None:
        """Keeps what the strategy was told before the first round."""
        self._append({"kind": "hints", **asdict(hints)})

    def add_outlook(self, index: int, outlook: Outlook) -> None:
        """Keeps what the strategy was told before a round."""
        self._append({"kind": "outlook", "round": index, **asdict(outlook)})

    def add_raised(self, during: str, raised: Mapping[str, float]) -> None:
        """Notes the matrices whose Hessian took more damping than asked for, and how much."""
        if self.history.raised.get(during) != raised:  # else a step that was cut off
            self._append({"kind": "damping", "during": during, "raised": dict(raised)})

    def add_round(self, done: Round) -> None:
        self._append({"kind": "round", **_timeless(asdict(done))})
        self.history.rounds[done.index] = done
        self.add_time("round", str(done.index), done.seconds)

    def give_up(self, failed: Sequence[Score], exact: bool = False) -> None:
        """Records that all of these failed; a resumed run scores them again."""
        names = [score.candidate for score in failed]
        projector = failed[0].projector if failed else 0
        self._append(
            {"kind": "gave up", "candidates": names, "projector": projector, "exact": exact}
        )

    def add_exact(self, score: Score) -> None:
        """A finalist's score, pruned exactly."""
        self._append({"kind": "exact", **_timeless(asdict(score))})

    def add_polish(self, step: ProjectorStep) -> None:
        """How the champion's own projector step went."""
        self._append({"kind": "polish", "step": asdict(step)})

    def add_row(self, row: Row) -> None:
        """A row of the final table."""
        self._append({"kind": "row", **asdict(row)})

    def add_drift(
        self, differences: Sequence[str], fingerprint: Mapping[str, Any], afresh: bool
    ) -> None:
        """Records that the run goes on under other conditions."""
        self._append({
            "kind": "drift", "differences": list(differences), "fingerprint": dict(fingerprint),
            "afresh": afresh,
        })  # fmt: skip

    @property
    def budgeted(self) -> Mapping[str, Any] | None:
        """What the budget measured of the machine when the run began."""
        return self.history.noted.get(BUDGET)

    def settle(self, terms: Mapping[str, Term], vlm: VLM, budgeted: Mapping[str, Any]) -> None:
        """Gives terms what they measured when the run began; what is new is recorded, as is what
        the budget measured."""
        if budgeted and self.budgeted is None:
            self._append({"kind": "noted", "term": BUDGET, "facts": dict(budgeted)})
        for name, term in terms.items():
            if name in self.history.noted:
                term.recall(self.history.noted[name])
            elif facts := term.noted(vlm):
                self._append({"kind": "noted", "term": name, "facts": facts})

    def add_scope(self, facts: Mapping[str, Any]) -> None:
        """What there is to prune, to choose and to measure on."""
        self._append({"kind": "scope", **facts})

    def add_samples(self, facts: Mapping[str, Any]) -> None:
        """Answers of the dense model and the champion; their pictures stand in `samples`."""
        self._append({"kind": "samples", **facts})

    def add_end(self, facts: Mapping[str, Any]) -> None:
        """The last line: what was found, and the seals of what was written."""
        written = [
            self.folder / "best.toml",
            *sorted((self.folder / "model").rglob("*")),
            *sorted((self.folder / "front").glob("*")),
            *sorted(self.samples.glob("*")),
        ]
        self._append({"kind": "end", **facts, "files": files.seals(self.folder, written)})

    def add_time(self, what: str, name: str, seconds: float) -> None:
        """Keeps how long something took, beside the journal and not in it."""
        self._add_cost(history.time_line(what, name, seconds))

    def add_machine(self, machine: str, peak_bytes: int) -> None:
        """Keeps where this process worked and what it held, beside the journal too."""
        self._add_cost(history.machine_line(machine, peak_bytes))

    def save_projector(self, version: int, state: Mapping[str, Tensor]) -> None:
        """Keeps a projector with its optimiser, sealed in the journal."""
        file = self._projector(version)
        files.write(file, save(dict(state), metadata={"format": "pt"}))
        sealed = files.seal(file)
        if self.history.projectors.get(version) != sealed:  # else a step that was cut off
            self._append({"kind": "projector", "version": version, "file": sealed})

    def load_projector(self, version: int) -> dict[str, Tensor]:
        file = self._projector(version)
        sealed = self.history.projectors.get(version)
        if sealed is None:
            raise RunError(f"{file} is asked for, and {self.folder / JOURNAL} names no such file.")
        self._check(file, sealed, "projector", version)
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file} cannot be read ({error}); restore it.") from None

    def check_projectors(self) -> None:
        """Refuses a run in which one of them is damaged, also one that is not read again."""
        for version, sealed in self.history.projectors.items():
            self._check(self._projector(version), sealed, "projector", version)

    @property
    def samples(self) -> Path:
        """Where pictures of sample answers are kept."""
        return self.folder / "samples"

    @property
    def levels(self) -> Path:
        """Where the level store is kept."""
        return self.folder / "levels"

    def add_levels(self) -> None:
        """Records that the level store is whole."""
        seals = files.seals(self.levels, sorted(self.levels.iterdir()))
        if self.history.levels != seals:
            self._append({"kind": "levels", "files": seals})

    def wrong_levels(self, folder: Path) -> str:
        """How a folder's files differ from the level store in the journal, where it has one."""
        for name, sealed in (self.history.levels or {}).items():
            if unlike := files.unlike(folder / name, sealed):
                return f"{folder / name} {unlike}"
        return ""

    def refuse_levels(self, trouble: str) -> NoReturn:
        """Refuses a damaged level store that comes out otherwise when it is solved anew."""
        raise RunError(
            f"{trouble}, and solved anew it comes out otherwise (another machine, another number "
            f"of threads?). Restore it, or cut {self.folder / JOURNAL} at byte "
            f"{self.history.where('levels')} to go on from before it was made."
        )

    def save_best(self, text: str) -> Path:
        files.write(self.folder / "best.toml", text.encode())
        return self.folder / "best.toml"

    def discard(self) -> None:
        """Removes a run in which nothing has happened yet."""
        with files.writing(self.folder):
            for name in (JOURNAL, SETTINGS, TIMES, LOCK):
                (self.folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty: something else is there
                (self.folder / "projectors").rmdir()
                self.folder.rmdir()

    def _add_cost(self, line: str) -> None:
        file = self.folder / TIMES
        with files.writing(file), file.open("a", encoding="utf-8") as stream:
            stream.write(line)

    def _append(self, record: Record) -> None:
        offset = self._journal.end
        self._journal.append(record)
        self.history.take(record, offset)

    def _check(self, file: Path, sealed: Seal, kind: str, version: int) -> None:
        """Refuses an artefact that is not what the journal says."""
        if unlike := files.unlike(file, sealed):
            raise RunError(
                f"{file} {unlike}. Restore it, or cut {self.folder / JOURNAL} at byte "
                f"{self.history.where(kind, version)} to go on from before it was made."
            )

    def _projector(self, version: int) -> Path:
        return self.folder / "projectors" / f"{version:04d}.safetensors"


def create(folder: Path, chosen: Settings, fingerprint: Mapping[str, Any]) -> Run:
    """A fresh run folder; one that exists is never overwritten."""
    check_free(folder)
    with files.writing(folder):
        (folder / "projectors").mkdir(parents=True, exist_ok=True)
        for path in (folder, folder.parent):
            files.sync_folder(path)
    lock = _locked(folder)
    try:
        check_free(folder)  # again, now that nobody else can be at work in it
        files.sweep(folder)
        files.write(folder / SETTINGS, settings.write(chosen).encode())
        run = Run(folder, lock)
    except BaseException:
        os.close(lock)
        raise
    try:
        run._append({"kind": "start", "format": FORMAT, "fingerprint": dict(fingerprint)})
    except BaseException:
        run.close()
        raise
    return run


def check_free(folder: Path) -> None:
    """Refuses a folder that already holds something, and says what."""
    if not str(folder).isprintable() or str(folder).startswith("-"):
        raise RunError(
            f"A run folder cannot be called {str(folder)!r}: give --out a name of printable "
            f"characters that does not begin with '-'."
        )
    with files.writing(folder):
        if folder.is_file():
            raise RunError(f"{folder} is a file; choose another folder with --out.")
        found = {file.name for file in folder.iterdir()} if folder.exists() else set()
    if JOURNAL in found and SETTINGS in found and (held := _held(folder)):
        raise RunError(f"{folder} already holds a search: {held} Or choose another --out.")
    foreign = sorted(name for name in found - LEFTOVERS if not name.endswith(files.PARTIAL))
    if foreign:
        raise RunError(
            f"{folder} already holds files ({', '.join(foreign[:3])}). Choose another folder with "
            f"--out."
        )


def reopen(folder: Path) -> Run:
    """An existing run, to go on with it."""
    history.check_folder(folder)
    lock = _locked(folder)
    try:
        run = Run(folder, lock)
    except BaseException:
        os.close(lock)
        raise
    try:
        if not run.history.start:
            raise RunError(
                f"{folder} stopped before it began: {folder / JOURNAL} ends at byte {run.torn} "
                f"without a whole line. Remove the folder and start again."
            )
        for place in (folder, folder / "projectors"):
            files.sweep(place)
        run.check_projectors()
    except BaseException:
        run.close()
        raise
    return run


def _held(folder: Path) -> str:
    """What a folder's journal says of the search in it; nothing where it never began."""
    try:
        found = history.glance(folder, 0)
        if not found.start:
            return ""
        rounds = settings.read(folder / SETTINGS).rounds
    except SlimsearchError as error:
        return str(error)
    if found.end:
        return f"{history.summary(found, rounds)} Its champion is {folder / 'best.toml'}."
    return f"{history.summary(found, rounds)} To go on with it: {history.resume_line(folder)}."


def _locked(folder: Path) -> int:
    """Holds the folder for this process; the kernel lets go of it when the process ends."""
    with files.writing(folder):
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            if time.monotonic() < until:
                time.sleep(0.02)
                continue
            os.close(handle)
            raise RunError(
                f"{folder} is in use by another process. Wait for it, or watch it with "
                f"slimsearch status {quote(str(folder))}."
            ) from None


def _timeless(facts: Any) -> Any:
    """Without the seconds that things took, so that two runs of one seed keep one journal."""
    if isinstance(facts, Mapping):
        return {key: _timeless(value) for key, value in facts.items() if key != "seconds"}
    if isinstance(facts, list | tuple):
        return [_timeless(value) for value in facts]
    return facts
