"""What the journal of a run tells: scores, rounds, artefacts, how it ended. Needs no torch.

A run takes in each record as it writes it; `status` and `show` read the same from the file, while
another process may be writing it.
"""

from __future__ import annotations

import fcntl
import json
import re
import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf, nan
from pathlib import Path, PurePosixPath
from sys import intern
from typing import Any

from slimsearch import files
from slimsearch.errors import RunError
from slimsearch.files import Seal
from slimsearch.record import journal
from slimsearch.record.candidate import Hints, Outlook, ProjectorStep, Round, Row, Score
from slimsearch.record.journal import Record

FORMAT = 2
JOURNAL, SETTINGS, TIMES, LOCK = "journal.jsonl", "settings.toml", "times.jsonl", "lock"

# Lines of the journal that a glance passes over, as run.py writes them.
_SOUND = re.compile(rb'\{"kind":"score","candidate":"([^"\\]+)",.*,"failure":""\}')
_ROUND = b'{"kind":"round",'

# A candidate's name, the projector version it was scored under, the share of the calibration.
Key = tuple[str, int, float]


class History:
    """Everything that the records so far say, by what it is about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start: Record = {}
        self.fingerprint: dict[str, Any] = {}  # what a resumed run must find
        self.scores: dict[Key, Score] = {}
        self.exact: dict[Key, Score] = {}  # finalists, pruned exactly
        self.given_up: list[Score] = []  # why the search stopped: all that it scored last failed
        self.rounds: dict[int, Round] = {}
        self.projectors: dict[int, Seal] = {}
        self.levels: dict[str, Seal] | None = None  # by file name
        self.hints: Hints | None = None  # what the strategy was told before the first round
        self.outlooks: dict[int, Outlook] = {}  # by round: what it was told before that
        self.polished: ProjectorStep | None = None  # the champion's own projector step
        self.rows: dict[str, Row] = {}  # of the final table
        # What an artefact or score was pruned for -> matrix -> damping beyond the one asked for.
        self.raised: dict[str, dict[str, float]] = {}
        self.drift: list[str] = []  # differences that were allowed
        self.noted: dict[str, Record] = {}  # what terms measured of the machine, by their names
        self.scope: Record | None = None  # what there is to prune and to measure on, counted
        self.samples: Record | None = None  # answers of the dense model and the champion
        self.end: Record | None = None
        # What a glance does not look at: sound scores but for their names, and earlier rounds.
        self.passed: set[str] = set()
        self.earlier = 0
        self._places: dict[tuple[str, int], int] = {}  # where artefacts stand in the journal
        self._count = 0

    def take(self, record: Record, offset: int) -> None:
        """Takes in the next record, which stands at this byte of the journal."""
        self._count += 1
        try:
            self._take(record, offset)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{self.folder / JOURNAL} holds at byte {offset} (line {self._count}) a record "
                f"that this slimsearch does not understand ({type(error).__name__}: {error}). Cut "
                f"it there to go on from before it, or use the release that wrote it."
            ) from None

    def where(self, kind: str, version: int = 0) -> int | None:
        """The byte at which the journal records an artefact."""
        return self._places.get((kind, version))

    def let_go(self, alive: Collection[str]) -> None:
        """Forgets closed rounds, and all scores but those of candidates that are alive.

        A search of any length then takes as much memory as one round; the journal has it all.
        """
        self.rounds.clear()
        self.outlooks.clear()
        self.scores = {key: score for key, score in self.scores.items() if key[0] in alive}

    def add_times(self) -> None:
        """Adds the seconds that were kept beside the journal."""
        kept = times(self.folder)
        for index, done in self.rounds.items():
            self.rounds[index] = replace(done, seconds=kept["round"].get(str(index), 0.0))

    def check_written(self, beginning: str) -> None:
        """Refuses files of a finished run that are not what its last line says."""
        for name, sealed in (self.end or {}).get("files", {}).items():
            if name.startswith(beginning) and (unlike := files.unlike(self.folder / name, sealed)):
                raise RunError(
                    f"{self.folder / name} {unlike}. Restore it, or cut {self.folder / JOURNAL} "
                    f"at byte {self.where('end')} and resume to write it again."
                )

    @property
    def scored(self) -> int:
        """How many candidates have a score."""
        return len(self.passed | {name for name, _, _ in self.scores})

    @property
    def closed(self) -> int:
        """How many rounds are closed."""
        return self.earlier + len(self.rounds)

    @property
    def failures(self) -> list[Score]:
        return [score for score in self.scores.values() if not score.ok]

    def _take(self, record: Record, offset: int) -> None:
        kind = record["kind"]
        if not self.start:
            _check_start(self.folder, record)
        {
            "start": self._take_start,
            "score": lambda record: self._take_score(self.scores, record),
            "gave up": self._take_failure_of_all,
            "hints": self._take_hints,
            "outlook": self._take_outlook,
            "round": self._take_round,
            "projector": self._take_projector,
            "levels": self._take_levels,
            "exact": lambda record: self._take_score(self.exact, record),
            "damping": self._take_damping,
            "polish": self._take_polish,
            "row": self._take_row,
            "drift": self._take_drift,
            "noted": self._take_noted,
            "scope": self._take_scope,
            "samples": self._take_samples,
            "end": self._take_end,
        }[kind](record)
        self._places[kind, record.get("version", 0)] = offset

    def _take_start(self, record: Record) -> None:
        self.start, self.fingerprint = record, record["fingerprint"]

    def _take_score(self, scores: dict[Key, Score], record: Record) -> None:
        score = _score(record)
        self.given_up.clear()
        scores[score.candidate, score.projector, score.share] = score

    def _take_failure_of_all(self, record: Record) -> None:
        """Forgets what all failed: a resumed run tries it again."""
        scores = self.exact if record["exact"] else self.scores
        for name in record["candidates"]:
            given_up = [key for key in scores if key[:2] == (name, record["projector"])]
            if not given_up:
                raise KeyError(name)
            self.given_up += [scores[key] for key in given_up if not scores[key].ok]
            for key in given_up:
                del scores[key]

    def _take_hints(self, record: Record) -> None:
        known = {name: tuple(genes) for name, genes in record["allocations"].items()}
        self.hints = Hints(known, tuple(tuple(some) for some in record["costs"]))

    def _take_outlook(self, record: Record) -> None:
        along, away = (tuple(tuple(some) for some in record[key]) for key in ("along", "away"))
        self.outlooks[int(record["round"])] = Outlook(tuple(record["genes"]), along, away)

    def _take_round(self, record: Record) -> None:
        self.rounds[record["index"]] = _round(record)

    def _take_projector(self, record: Record) -> None:
        (self.projectors[int(record["version"])],) = _sealed({"": record["file"]}).values()

    def _take_levels(self, record: Record) -> None:
        self.levels = _sealed(record["files"])

    def _take_damping(self, record: Record) -> None:
        self.raised[record["during"]] = {m: float(d) for m, d in record["raised"].items()}

    def _take_polish(self, record: Record) -> None:
        self.polished = ProjectorStep(**record["step"])

    def _take_row(self, record: Record) -> None:
        figures = {key: nan if v is None else v for key, v in record["figures"].items()}
        self.rows[record["name"]] = Row(record["name"], record["sparsity"], figures)

    def _take_drift(self, record: Record) -> None:
        self.drift += map(str, record["differences"])
        self.fingerprint = dict(record["fingerprint"])
        if record["afresh"]:  # what was measured under the old conditions does not hold
            self.levels = self.polished = self.scope = self.samples = None
            self.exact.clear()
            self.rows.clear()

    def _take_noted(self, record: Record) -> None:
        self.noted[record["term"]] = record["facts"]

    def _take_scope(self, record: Record) -> None:
        self.scope = record

    def _take_samples(self, record: Record) -> None:
        self.samples = record

    def _take_end(self, record: Record) -> None:
        _sealed(record["files"])
        self.end = record


def read(folder: Path) -> History:
    """The history of a run that another process may be writing."""
    check_folder(folder)
    history = History(folder)
    file = folder / JOURNAL
    for line, (text, offset) in enumerate(zip(*journal.lines(file), strict=False), 1):
        history.take(journal.parse(file, text, offset, line), offset)
    history.add_times()
    return history


def glance(folder: Path, rounds: int) -> History:
    """The same without what `status` does not show: few scores are parsed, and few rounds."""
    check_folder(folder)
    history, file = History(folder), folder / JOURNAL
    closed: list[tuple[bytes, int, int]] = []
    for line, (text, offset) in enumerate(zip(*journal.lines(file), strict=False), 1):
        if history.start and (sound := _SOUND.fullmatch(text)):
            history.passed.add(sound[1].decode())
            history.given_up.clear()
        elif history.start and text.startswith(_ROUND):
            closed.append((text, offset, line))
        else:
            history.take(journal.parse(file, text, offset, line), offset)
    history.earlier = max(0, len(closed) - rounds)
    for text, offset, line in closed[history.earlier :]:
        history.take(journal.parse(file, text, offset, line), offset)
    history.add_times()
    return history


def check_folder(folder: Path) -> None:
    """Refuses what is no run folder, and one with links in it: they may lead anywhere."""
    for name in (SETTINGS, JOURNAL):
        if not (folder / name).is_file():
            raise RunError(
                f"{folder} is no run folder: it has no {name}. Give one that `run` made."
            )
    for path in folder.iterdir():
        if path.is_symlink():
            raise RunError(f"{path} is a link. Refused; copy in what it points to.")


def raised_sentence(raised: Mapping[str, float]) -> str:
    """Raised dampings as the user reads them."""
    named = ", ".join(f"{matrix} to {damping:g}" for matrix, damping in raised.items())
    return f"Hessians that could not be factorised as they were had their damping raised: {named}."


def in_use(folder: Path) -> bool:
    """Whether a process holds this run now."""
    try:
        with (folder / LOCK).open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def state(history: History) -> str:
    """finished, going on or interrupted."""
    return "finished" if history.end else "going on" if in_use(history.folder) else "interrupted"


def summary(history: History, rounds: int) -> str:
    """One sentence on how far a run of so many rounds has come."""
    failed = len(history.failures)
    return (
        f"{state(history)}; {history.closed} of {rounds} rounds closed, "
        f"{history.scored} candidates scored, {failed} failed."
    )


def resume_line(folder: Path) -> str:
    """What to type to go on with a run."""
    return f"slimsearch resume {shlex.quote(str(folder))}"


def times(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds by round, by candidate and by stage, as far as they were kept.

    They stand beside the journal, so that two journals of one seed are the same, and nothing
    depends on them: a torn line is skipped.
    """
    found: dict[str, dict[str, float]] = {"round": {}, "score": {}, "stage": {}}
    for line in _time_lines(folder):
        match = re.fullmatch(r'\{"(round|score|stage)":"([^"]*)","seconds":([0-9.e-]+)\}', line)
        if match:
            of = found[match[1]]
            of[match[2]] = of.get(match[2], 0.0) + float(match[3])
    return found


def time_line(what: str, name: str, seconds: float) -> str:
    """A line of times.jsonl."""
    return json.dumps({what: name, "seconds": round(seconds, 4)}, separators=(",", ":")) + "\n"


def machines(folder: Path) -> list[tuple[str, int]]:
    """Each process that ended its work on a run: its machine, and the most bytes it held."""
    found: list[tuple[str, int]] = []
    for line in _time_lines(folder):
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(line)
            found.append((str(told["machine"]), int(told["peak_bytes"])))
    return found


def machine_line(machine: str, peak_bytes: int) -> str:
    """A line of times.jsonl."""
    return files.to_json({"machine": machine, "peak_bytes": peak_bytes}) + "\n"


def _time_lines(folder: Path) -> list[str]:
    try:
        return (folder / TIMES).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _check_start(folder: Path, record: Record) -> None:
    if record["kind"] != "start" or record["format"] != FORMAT:
        raise RunError(
            f"{folder} has format {record.get('format')}, this slimsearch reads {FORMAT}; use the "
            f"release that wrote it."
        )


def _sealed(seals: Mapping[str, Any]) -> dict[str, Seal]:
    """Seals by file name; a name that leads out of the run's folder is refused unopened."""
    found: dict[str, Seal] = {}
    for name, sealed in seals.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"a file called {name!r}")
        found[name] = {"bytes": int(sealed["bytes"]), "sha256": str(sealed["sha256"])}
    return found


def _score(record: Mapping[str, Any]) -> Score:
    values = {key: value for key, value in record.items() if key != "kind"}
    total = inf if values["total"] is None else float(values["total"])
    genes = tuple(int(gene) for gene in values["genes"])
    terms = {intern(name): value for name, value in values["terms"].items()}
    return Score(**{**values, "total": total, "genes": genes, "terms": terms})


def _round(record: Mapping[str, Any]) -> Round:
    step = record["step"]
    return Round(
        index=record["index"],
        scores=tuple(_score(score) for score in record["scores"]),
        weights=tuple(record["weights"]),
        champion=_score(record["champion"]),
        projector=record["projector"],
        step=None if step is None else ProjectorStep(**step),
    )
