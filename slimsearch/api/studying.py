"""Several searches side by side: each is a run of its own, in a folder and a process of its own.

A run that is finished is read, one that was interrupted goes on, the others begin. So a study that
was stopped is simply started again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from slimsearch import files, footprint, settings
from slimsearch.errors import ResourceError, RunError, SettingsError, did_you_mean
from slimsearch.model.checkpoint import record_of
from slimsearch.record import history
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

COSTS = "costs.json"  # what each run took; it stands in the study's folder
FREE = ("out", "json", "dry_run")  # settings in which two runs of one row may differ
STOPPED = (5, 130, 143)  # exit codes of a run that can go on


@dataclass(frozen=True)
class Trial:
    """One run of a study; `name` is its folder's. A `narrow` leaves a model folder, no run."""

    name: str
    about: str
    settings: Settings
    command: str = "run"


@dataclass(frozen=True)
class Outcome:
    """What a finished run found, on data that was not calibrated on, and what it took."""

    name: str
    about: str
    sparsity: float
    figures: dict[str, float]
    seconds: float
    peak_bytes: int


def chosen(trials: Sequence[Trial], only: str) -> list[Trial]:
    """The trials named in a list such as 'uniform, searched'; all of them for ''."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [trial.name for trial in trials]
    for name in names:
        if name not in known:
            raise SettingsError(f"There is no row '{name}'.{did_you_mean(name, known)}")
    return [trial for trial in trials if not names or trial.name in names]


def carry_out(trials: Sequence[Trial], folder: Path, watch: Watch) -> list[Outcome]:
    """Runs what is not finished yet; a run that fails is left out, and said."""
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for trial in trials:  # before any work
        _check_same(trial, folder / trial.name)
    found: list[Outcome] = []
    for trial in trials:
        place = folder / trial.name
        with watch.stage(trial.name):
            code = 0 if _table(place) else _run(trial, folder)
        if code in STOPPED:
            raise ResourceError(f"'{trial.name}' was stopped. The same command goes on with it.")
        if code:
            watch.note(f"'{trial.name}' failed (exit code {code}) and is left out.")
            continue
        found.append(_outcome(trial, folder))
    if not found:
        raise ResourceError("Every run failed.")
    return found


def dense(trial: Trial, folder: Path) -> Outcome:
    """The model before anything was pruned, as a finished run measured it."""
    row = (_table(folder / trial.name) or [])[0]
    return Outcome("dense", "nothing pruned", row["sparsity"], row["figures"], 0.0, 0)


def as_dicts(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [asdict(outcome) for outcome in outcomes]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _run(trial: Trial, folder: Path) -> int:
    """Begins or goes on with a run in a process of its own; its exit code."""
    place, file = folder / trial.name, folder / f"{trial.name}.toml"
    if (place / history.JOURNAL).is_file() and history.read(place).start:
        words = ["resume", str(place)]
    else:
        files.write(file, settings.write(replace(trial.settings, out=str(place))).encode())
        words = [trial.command, "--from", str(file)]
    command = [sys.executable, "-c", "from slimsearch.cli import main; main()", *words]
    began = perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _, status, usage = os.wait4(child.pid, 0)  # unlike wait, it tells this child's memory
    except BaseException:
        child.terminate()
        child.wait()
        raise
    child.returncode = os.waitstatus_to_exitcode(status)
    file.unlink(missing_ok=True)
    _add_cost(folder, trial.name, perf_counter() - began, usage.ru_maxrss * footprint.UNIT)
    return child.returncode


def _check_same(trial: Trial, place: Path) -> None:
    """Refuses a run in the study's folder that was made with other settings."""
    if (place / history.SETTINGS).is_file():
        before = settings.as_dict(settings.read(place / history.SETTINGS))
    elif record := record_of(place):
        before = record["fingerprint"]["settings"]
    else:
        return
    now = settings.as_dict(trial.settings)
    differing = [key for key in before if key not in FREE and before[key] != now[key]]
    if differing:
        raise RunError(
            f"{place} holds a run with other settings ({', '.join(differing)}). Choose another "
            f"--out, or remove it."
        )


def _table(place: Path) -> list[dict[str, Any]] | None:
    """The rows that a finished run or a narrowed model came with; None where it is not finished."""
    if (place / history.JOURNAL).is_file():
        end = history.read(place).end
        return None if end is None else end["table"]
    return record_of(place).get("table")


def _outcome(trial: Trial, folder: Path) -> Outcome:
    place = folder / trial.name
    row = (_table(place) or [])[-1]  # the model that was written
    gone = record_of(place).get("removed_with_heads_and_channels", row["sparsity"])
    cost = _costs(folder).get(trial.name, {"seconds": 0.0, "peak_bytes": 0})
    return Outcome(trial.name, trial.about, gone, row["figures"], **cost)


def _costs(folder: Path) -> dict[str, dict[str, Any]]:
    file = folder / COSTS
    try:
        return json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise RunError(f"{file} is damaged ({error}); remove it: times will be missing.") from None


def _add_cost(folder: Path, name: str, seconds: float, peak: int) -> None:
    """Adds what a process took to what earlier ones took for the same run."""
    costs = _costs(folder)
    before = costs.get(name, {"seconds": 0.0, "peak_bytes": 0})
    costs[name] = {
        "seconds": round(before["seconds"] + seconds, 2),
        "peak_bytes": max(before["peak_bytes"], peak),
    }
    files.write(folder / COSTS, files.to_json(costs, indent=2).encode())
