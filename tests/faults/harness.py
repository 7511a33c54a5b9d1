"""Does harm to real searches, and holds what comes of it against an unbroken run.

Victims are forked from a server that has imported everything, so that one costs half a second.
Whatever is done to it, a run must end in one of two ways: gone on with to the same bytes, or
refused by an error that names a file.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tiny
from faults import victim
from faults.victim import Fault, Work

from slimsearch.record import journal

LONG = os.environ.get("SLIMSEARCH_FAULTS") == "long"
APART = ("times.jsonl", "settings.toml", "lock")  # hold seconds, the folder's name, nothing
PATIENCE = 240  # seconds for one victim

TALLY: Counter[tuple[str, str]] = Counter()  # (kind of fault, how it ended)


@dataclass(frozen=True)
class Ended:
    """How a victim ended: done, refused, broke or killed; and what it said."""

    how: str
    said: str = ""
    stage: str = ""  # the last that began


def times(short: int, long: int) -> range:
    """How often a fault is injected."""
    return range(long if LONG else short)


def attempt(
    work: Work,
    fault: Fault | None = None,
    *,
    kill_at: tuple[str, float] | None = None,
) -> Ended:
    """Runs the work in a process of its own; `kill_at` is a stage and seconds after it began."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.warm"])
    # The server does not look where we look, and says nothing where it finds nothing.
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    ours, theirs = context.Pipe()
    process = context.Process(target=victim.main, args=(theirs, work, fault), daemon=True)
    process.start()
    theirs.close()
    stage, ended, aimed = "", None, False
    deadline = time.monotonic() + PATIENCE
    while ended is None:
        if not ours.poll(max(0.0, deadline - time.monotonic())):
            process.kill()
            assert aimed, f"{work.kind} hung in {stage!r}"
            ended = Ended("killed", stage=stage)
            break
        try:
            how, said = ours.recv()
        except EOFError:
            ended = Ended("killed", stage=stage)
            break
        if how != "stage":
            ended = Ended(how, said, stage)
        else:
            stage = said
            if kill_at is not None and said == kill_at[0] and not aimed:
                aimed, deadline = True, time.monotonic() + kill_at[1]
    process.join()
    ours.close()
    assert ended is not None
    assert ended.how != "broke", ended.said
    return ended


class Ground:
    """A tiny search, how it ends when nothing happens, and copies of it to do harm to."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.random = random.Random(int(os.environ.get("SLIMSEARCH_FAULTS_SEED", "0")))
        self._count = 0
        small = tiny.settings(
            tiny.llava(folder / "model"), tiny.pairs(folder / "pairs"), tiny.text(folder / "a.txt")
        )
        self.settings = replace(
            small, policy="per_matrix", candidates=2, survivors=2, finalists=2, pair_count=6,
            segments=2, out=str(folder / "unbroken"),
        )  # fmt: skip
        self.unbroken = folder / "unbroken"
        ended = attempt(self.work("search", self.unbroken), victim.CountingSteps())
        assert ended.how == "done", ended
        self.steps = int(ended.said)
        self.outcome = outcome(self.unbroken)

    def work(self, kind: str, run: Path) -> Work:
        return Work(kind, run, replace(self.settings, out=str(run)))

    def new(self) -> Path:
        """Where the next run will stand."""
        self._count += 1
        return self.folder / f"run-{self._count}"

    def cut(self, size: int) -> Path:
        """A copy of the finished run, its journal cut to so many bytes."""
        run = self.new()
        shutil.copytree(self.unbroken, run)
        os.truncate(run / "journal.jsonl", size)
        return run

    def ends(self) -> list[int]:
        """The byte behind each line of the unbroken journal."""
        return journal.read(self.unbroken / "journal.jsonl")[1][1:]

    def go_on(self, kind: str, run: Path) -> None:
        """The run must come to the same end; counts it as survived."""
        file = run / "journal.jsonl"
        kept = journal.read(file)[0] if file.is_file() else []
        if not kept or kept[-1]["kind"] != "end":  # else it came to its end before the fault
            ended = attempt(self.work("resume" if kept else "search", run))
            assert ended.how == "done", f"{kind}: {ended}"
        self.same(kind, run)

    def same(self, kind: str, run: Path) -> None:
        found = outcome(run)
        assert found.keys() == self.outcome.keys(), kind
        assert [n for n, content in found.items() if content != self.outcome[n]] == [], kind
        TALLY[kind, "gone on with, bit for bit"] += 1
        shutil.rmtree(run)

    def refused(self, kind: str, ended: Ended, *named: object) -> None:
        """The victim must have been refused, naming all of these."""
        assert ended.how == "refused", f"{kind}: {ended}"
        for name in named:
            assert str(name) in ended.said, f"{kind}: {ended.said}"
        TALLY[kind, "refused by name"] += 1

    def harm_file(self, kind: str, run: Path, file: Path, harm: Callable[[bytes], bytes]) -> None:
        """Harms one file; then the run goes on to the same bytes, or is refused by that file."""
        file.write_bytes(harm(file.read_bytes()))
        ended = attempt(self.work("resume", run))
        if ended.how == "done":
            self.same(kind, run)
        else:
            # What settings.toml says wrongly is named by its key.
            named = "settings" if file.name == "settings.toml" else file
            self.refused(kind, ended, named)
            shutil.rmtree(run)


def outcome(run: Path) -> dict[str, bytes]:
    """Every file of a run that does not tell of time or place."""
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.name not in APART
    }
