"""The runs behind the paper's tables, and what they and their evaluations found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slimsearch import files, settings
from slimsearch.api import comparing, studying, sweeping, timing
from slimsearch.api.studying import Outcome, Trial
from slimsearch.errors import ResourceError, SettingsError, did_you_mean
from slimsearch.record import results
from slimsearch.replicating.published import RATIOS
from slimsearch.searching import objective
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

EXHIBITS = ("table-1", "table-2", "table-3", "table-4", "figure-1", "figure-3")
NARROWED = "narrow-"  # models of slimsearch narrow, which is no search
ABLATED, SWEPT = 0.5, 0.4  # the ratios of Tables 1 and 2, and of Figure 3
ABLATIONS = {  # the paper's row -> ours in `compare`
    "Auto w/o Gen": "no-norm-term", "No Evo": "no-projector", "Evo w/o UB": "even-weights",
}  # fmt: skip
BENCHMARKS = {  # name -> the task of `eval` with what it needs to be told, how it is called
    "scienceqa": (("scienceqa",), "ScienceQA"),
    "vizwiz": (("vqa", "--dataset", "vizwiz"), "VizWiz"),
    "mmvet": (("mmvet",), "MM-Vet"),
    "llava_bench": (("llava_bench",), "LLaVA-Bench"),
}


@dataclass(frozen=True)
class Cell:
    """A figure, or why there is none."""

    value: float | None
    why: str = ""


@dataclass(frozen=True)
class Study:
    """Finished runs by name, with what `eval` and `bench` left in their folders."""

    folder: Path
    trials: Mapping[str, Trial]
    outcomes: Mapping[str, Outcome]
    results: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    asked: Collection[str] = ()  # benchmarks that there is data of
    narrowed: Collection[str] = ()  # models without a run, such as narrow-0.3

    def measured(self, name: str, key: str) -> Cell:
        """A figure of a run's own held-out data; name 'dense' is the model before."""
        if name not in self.outcomes:
            return Cell(None, f"the run {name} failed" if name in self.trials else "not asked for")
        value = self.outcomes[name].figures.get(key)
        if value is None:
            return Cell(None, "the run has no held-out data of that kind")
        return Cell(100 * value if key == "accuracy" else value)

    def sizes(self, benchmark: str) -> list[tuple[int, str]]:
        """How many questions of it were asked, and the judge's model, '' for none; each once."""
        every = [result for run in self.results.values() for result in run]
        return sorted({
            (result["count"], result.get("judge", {}).get("model", ""))
            for result in every if _is_of(result, benchmark)
        })  # fmt: skip

    def scored(self, name: str, benchmark: str, group: str = "") -> Cell:
        """A run's headline on a benchmark, as `eval` left it; in a group of its questions."""
        called, smaller = BENCHMARKS[benchmark][1], name.startswith(NARROWED)
        model = name if smaller else results.DENSE if name == "dense" else results.CHAMPION
        runs = list(self.results) if name == "dense" else [name]
        found = [
            result for run in runs for result in self.results.get(run, ())
            if _is_of(result, benchmark) and result["model"]["name"] == model
        ]  # fmt: skip
        if not found:
            if smaller and self.asked and name not in self.narrowed:
                return Cell(None, "slimsearch narrow was not run, or refused this model")
            if not smaller and name != "dense" and name not in self.outcomes:
                return self.measured(name, "")
            failed = f"{called} was asked, and that failed"
            return Cell(None, failed if benchmark in self.asked else f"no {called} at hand")
        most = max(found, key=lambda result: result["count"])
        headline = most["headline"]
        if group and group not in most["breakdown"]:
            return Cell(None, f"no question of {called} that was asked is of {group}")
        figures = most["breakdown"][group] if group else most["figures"]
        if headline not in figures or figures[headline]["value"] is None:
            return Cell(None, f"{called} was answered, and not graded")
        return Cell(figures[headline]["value"])


def named(ratio: float, method: str) -> str:
    """The run behind a method of the paper at a ratio."""
    if method == "dense":
        return "dense"
    if method == "LLM-Pruner":
        return f"{NARROWED}{ratio:g}"
    if method in ABLATIONS:
        return f"{ABLATIONS[method]}-{ratio:g}"
    return f"{'ours' if method == 'SlimLLaVA' else 'sparsegpt'}-{ratio:g}"


def exhibits(only: str) -> list[str]:
    """Those named in a list such as 'table-1, figure-3'; all of them for ''."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in EXHIBITS:
            raise SettingsError(f"There is no '{name}'.{did_you_mean(name, EXHIBITS)}")
    return [name for name in EXHIBITS if not names or name in names]


def trials(
    chosen: Settings, shown: Sequence[str], counts: Sequence[int], lengths: Sequence[int]
) -> dict[str, Trial]:
    """The runs that some tables and figures need, each once."""
    wanted: list[tuple[float, str]] = []
    if {"table-3", "table-4", "figure-1"} & set(shown):
        wanted += [(ratio, method) for ratio in RATIOS for method in ("SparseGPT", "SlimLLaVA")]
    if "table-1" in shown:
        wanted += [(ABLATED, method) for method in ("SparseGPT", "Auto w/o Gen", "SlimLLaVA")]
    if "table-2" in shown:
        wanted += [(ABLATED, method) for method in ("No Evo", "Evo w/o UB", "SlimLLaVA")]
    found = {named(*one): _trial(chosen, *one) for one in wanted}
    if "figure-3" in shown:
        for trial in sweeping.trials(replace(chosen, ratio=SWEPT), counts, lengths):
            found[trial.name] = trial
    return found


def carry_out(
    rows: Mapping[str, Trial],
    asked: Mapping[str, Sequence[str]],
    timed_in: str,
    narrowed: Sequence[float],
    folder: Path,
    watch: Watch,
) -> Study:
    """Runs what is not finished, asks each run what there is data for, and reads what was found.

    `asked` is what `slimsearch eval` is told for each benchmark: where its data is, and so on;
    `timed_in` is the form in which our runs of Figure 1 are timed, '' for none; `narrowed` are
    ratios at which heads and channels are removed, to be asked the same.
    """
    found = studying.carry_out(list(rows.values()), folder, watch)
    outcomes = {outcome.name: outcome for outcome in found}
    outcomes["dense"] = studying.dense(rows[found[0].name], folder)
    for outcome in found:
        beside = () if outcome is not found[0] else ("--against", results.DENSE)  # asked once
        for benchmark, told in asked.items():
            with watch.stage(f"{outcome.name}, {benchmark}"):
                _evaluate(folder / outcome.name, benchmark, (*told, *beside), watch)
    smaller = [
        name for ratio in narrowed
        if (name := _narrow(rows[found[0].name].settings, ratio, folder, watch))
    ]  # fmt: skip
    for name in smaller:
        for benchmark, told in asked.items():
            with watch.stage(f"{name}, {benchmark}"):
                _evaluate(folder / name, benchmark, told, watch)
    for run in [named(ratio, "SlimLLaVA") for ratio in RATIOS] if timed_in else ():
        if run in outcomes and not (folder / run / timing.FILE).is_file():
            with watch.stage(f"{run}, speed"):
                _call(["bench", str(folder / run), "--to", timed_in], f"'{run}' was not timed", run,
                      watch)  # fmt: skip
    kept = {
        name: results.all_in(folder / name / results.FOLDER)
        for name in (*(outcome.name for outcome in found), *smaller)
    }
    return Study(folder, rows, outcomes, kept, tuple(asked), tuple(smaller))


def _narrow(like: Settings, ratio: float, folder: Path, watch: Watch) -> str:
    """The name of a model without so many of its heads and channels; '' where there is none."""
    name = named(ratio, "LLM-Pruner")
    place, file = folder / name, folder / f"{name}.toml"
    if not place.is_dir():
        chosen = replace(like, ratio=ratio, objective="auto", policy="uniform", out=str(place))
        files.write(file, settings.write(chosen).encode())
        with watch.stage(name):
            _call(["narrow", "--from", str(file)], f"'{name}' was not made", name, watch)
        file.unlink(missing_ok=True)
    return name if place.is_dir() else ""


def _trial(chosen: Settings, ratio: float, method: str) -> Trial:
    """A method of the paper, whose scores have the norm term, as a row of `compare`."""
    row = ABLATIONS.get(method, "searched")
    if method == "SparseGPT":
        row = f"uniform-{chosen.solver}-text"
    eta = chosen.eta if chosen.eta > 0 else objective.ETA
    every = comparing.trials(replace(chosen, ratio=ratio, eta=eta))
    (trial,) = (trial for trial in every if trial.name == row)
    return replace(trial, name=named(ratio, method))


def _evaluate(run: Path, benchmark: str, told: Sequence[str], watch: Watch) -> None:
    """What was answered before is not asked again."""
    words = ["eval", str(run), "--task", *BENCHMARKS[benchmark][0], *told]
    _call(words, f"'{run.name}' was not evaluated on {benchmark}", run.name, watch)


def _call(words: Sequence[str], failed: str, run: str, watch: Watch) -> None:
    """A command of ours in a process of its own; that it fails is said."""
    command = [sys.executable, "-c", "from slimsearch.cli import main; main()", *words]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code in studying.STOPPED:
        raise ResourceError(f"'{run}' was stopped. The same command goes on with it.")
    if code:
        watch.note(f"{failed} (exit code {code}).")


def _is_of(result: Mapping[str, Any], benchmark: str) -> bool:
    task, *_ = BENCHMARKS[benchmark][0]
    told = f"{result['data']['name']} {result.get('choices', {})}".lower()
    return result["task"] == task and (task != "vqa" or benchmark in told)
