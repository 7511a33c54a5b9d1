"""The paper's tables again: published as printed, ours where measured, else the reason."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from reader import Reader

from slimsearch import replicating
from slimsearch.api import runs
from slimsearch.api.studying import Outcome
from slimsearch.errors import ResourceError, SettingsError
from slimsearch.record import results
from slimsearch.replicating import exhibits, published, study
from slimsearch.replicating.published import GROUPS, RATIOS
from slimsearch.replicating.study import Study
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings


class Notes(Watch):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def evaluation(task: str, model: str, value: float | None, groups: dict | None = None) -> dict:
    """As `eval` keeps it."""

    def told(number):
        return {"accuracy": {"value": number, "low": None, "high": None}}

    return {
        "format": 1, "task": task, "finished": True, "headline": "accuracy", "against": [],
        "model": {"name": model}, "data": {"name": task}, "choices": {}, "count": 1,
        "figures": {} if value is None else told(value),
        "breakdown": {group: told(number) for group, number in (groups or {}).items()},
    }  # fmt: skip


def outcome(name: str, **figures: float) -> Outcome:
    return Outcome(name, "", 0.5, figures, 1.0, 1)


@pytest.fixture
def found(tmp_path) -> Study:
    """Two runs that ended and one that failed; the search was asked ScienceQA."""
    rows = study.trials(Settings(), ["table-1"], [], [])
    names = ("sparsegpt-0.5", "ours-0.5", "dense")
    outcomes = {name: outcome(name, perplexity=9.0, accuracy=0.5) for name in names}
    kept = {"ours-0.5": [evaluation("scienceqa", "champion", 77.7, {"NAT": 71.0}),
                         evaluation("scienceqa", "dense", 88.8),
                         evaluation("mmvet", "champion", None)]}  # fmt: skip
    return Study(tmp_path, rows, outcomes, kept)


def words_of(chapter) -> str:
    from slimsearch.reporting.markup import rendered

    return " ".join(Reader(rendered(chapter)).words.split())


def test_what_the_paper_prints_twice_is_the_same():
    sqa = published.TABLE_3["LLaVA-SQA-7B"]
    assert published.TABLE_1["Uniform"][1] == sqa[0.5, "SparseGPT"][-1]
    for table in (published.TABLE_1, published.TABLE_2):
        assert table["SlimLLaVA"][1] == sqa[0.5, "SlimLLaVA"][-1]
    assert published.FIGURE_1[0.0][1] == sqa[0.0, "dense"][-1]
    for ratio in (0.3, 0.5):
        assert published.FIGURE_1[ratio][1] == sqa[ratio, "SlimLLaVA"][-1]
    outside = []
    for model, table in published.TABLE_3.items():
        assert {len(numbers) for numbers in table.values()} == {len(GROUPS) + 1}
        for key, numbers in table.items():  # an average lies between those of a split's halves
            low, high = sorted(numbers[-3:-1])
            outside += [] if low <= numbers[-1] <= high else [(model, *key)]
    assert outside == [("LLaVA-v1.5-7B", 0.4, "SparseGPT")]  # printed so
    for numbers in published.TABLE_4.values():
        assert len(numbers) == 1 + 3 * len(RATIOS)


def test_the_runs_behind_the_tables_differ_in_what_the_paper_varies():
    rows = study.trials(Settings(), study.EXHIBITS, [8, 64], [256])
    assert set(rows) == {
        *(f"{kind}-{ratio:g}" for kind in ("sparsegpt", "ours") for ratio in RATIOS),
        "no-norm-term-0.5", "no-projector-0.5", "even-weights-0.5", "8x256", "64x256",
    }  # fmt: skip
    assert all(row.settings.ratio == float(name.rpartition("-")[2])
               for name, row in rows.items() if "x" not in name)  # fmt: skip
    assert rows["sparsegpt-0.3"].settings.policy == "uniform"
    assert rows["sparsegpt-0.3"].settings.objective == "paper"
    assert rows["no-norm-term-0.5"].settings.eta == 0
    assert rows["ours-0.5"].settings.eta == rows["no-projector-0.5"].settings.eta == 0.5
    assert rows["no-projector-0.5"].settings.projector_steps == 0
    assert rows["even-weights-0.5"].settings.neighbours == 0
    swept = rows["8x256"].settings
    assert (swept.ratio, swept.segments, swept.segment_length) == (0.4, 8, 256)
    assert set(study.trials(Settings(), ["table-2"], [], [])) == {
        "no-projector-0.5", "even-weights-0.5", "ours-0.5",
    }  # fmt: skip


def test_a_cell_is_a_figure_or_says_why_there_is_none(found):
    assert found.scored("ours-0.5", "scienceqa").value == 77.7
    assert found.scored("ours-0.5", "scienceqa", "NAT").value == 71.0
    assert found.scored("dense", "scienceqa").value == 88.8
    assert found.measured("ours-0.5", "accuracy").value == 50.0
    for cell, why in (
        (found.scored("ours-0.5", "mmvet"), "MM-Vet was answered, and not graded"),
        (
            found.scored("ours-0.5", "scienceqa", "G7-12"),
            "no question of ScienceQA that was asked is of G7-12",
        ),
        (found.scored("ours-0.5", "vizwiz"), "no VizWiz at hand"),
        (found.scored("sparsegpt-0.5", "scienceqa"), "no ScienceQA at hand"),
        (found.scored("no-norm-term-0.5", "scienceqa"), "the run no-norm-term-0.5 failed"),
        (found.scored("ours-0.3", "scienceqa"), "not asked for"),
        (found.measured("ours-0.5", "answer_loss"), "the run has no held-out data of that kind"),
    ):
        assert (cell.value, cell.why) == (None, why)


def test_what_was_asked_in_vain_is_no_missing_data(found):
    tried = replace(found, asked=("vizwiz",))
    assert tried.scored("ours-0.5", "vizwiz").why == "VizWiz was asked, and that failed"


def test_a_page_says_how_much_was_searched_asked_and_by_whom_graded(found):
    graded = {**evaluation("mmvet", "champion", 50.0), "count": 3, "judge": {"model": "mild"}}
    more = replace(found, results={**found.results, "sparsegpt-0.5": [graded]})
    said = exhibits.grounds(more, Settings(rounds=2, candidates=5))
    assert "2 rounds of 5 candidates" in said
    assert "ScienceQA: 1 question. MM-Vet: 1 question. MM-Vet: 3 questions, graded by mild." in said
    assert "VizWiz" not in said


def test_tables_keep_the_papers_shape_and_fill_nothing(found):
    three = exhibits.table_3(found)
    assert len(three.lines) == 3 * len(published.TABLE_3["LLaVA-SQA-7B"])
    here = {line.names: line.cells for line in three.lines if line.names[-1] == "here"}
    assert here["0.5", "SlimLLaVA", "here"][-1].value == 77.7
    assert here["0.5", "SlimLLaVA", "here"][0].value == 71.0
    assert all(cell.value is None for cell in here["0.4", "LLM-Pruner", "here"])
    assert here["0.4", "LLM-Pruner", "here"][0].why == "no ScienceQA at hand"
    four = exhibits.table_4(found)
    assert len(four.columns) == 1 + 3 * 4
    measured = [cell for line in four.lines if line.names[-1] == "here" for cell in line.cells]
    assert all(cell.value is None and cell.why for cell in measured)
    assert [len(line.cells) for line in four.lines] == [12] * 6
    said = words_of(four.chapter("about"))
    assert "SparseGPT, LLaVA-v1.5-7B 50.05 46.43 41.90 38.61 35.40 21.20" in said
    assert "not run: no VizWiz at hand" in said


def test_table_1_holds_both_beside_one_another(found):
    said = words_of(exhibits.ablations(found, "table-1").chapter("about"))
    assert "SlimLLaVA, published 0.50 83.05 - - SlimLLaVA, here" in said
    assert "SlimLLaVA, here 0.50 77.70 50.00 9.00" in said
    assert "Auto w/o Gen, here not run not run not run not run" in said


def test_speed_comes_from_a_bench_beside_the_run(found):
    assert "at 0.3, 0.4, 0.5 there is no speed" in words_of(exhibits.figure_1(found))
    rows = [
        {"model": "export", "prompt": prompt, "prefill_ms": ms, "prefill_of_own_dense": times}
        for prompt, ms, times in ((64, 1.0, 9.0), (256, 5.0, 1.5), (256, 4.0, 1.25))
    ]
    dense = {"model": "against", "prompt": 256, "prefill_ms": 2.0, "prefill_of_own_dense": None}
    run = found.folder / "ours-0.5"
    run.mkdir()
    (run / "bench.json").write_text(json.dumps({"rows": [*rows, dense]}))
    chapter = exhibits.figure_1(found)
    assert "at 0.3, 0.4 there is no speed" in words_of(chapter)
    titles = [mark.text for mark in chapter.figures[0].scene.marks if hasattr(mark, "text")]
    assert "ours, here" in titles
    assert exhibits._speed(run) == 1.25


def test_each_benchmark_is_asked_by_a_process_of_its_own(found, monkeypatch):
    asked, notes = [], Notes()

    def run(command, **_):
        asked.append(command[3:])
        return subprocess.CompletedProcess(command, codes.pop(0))

    monkeypatch.setattr(study.subprocess, "run", run)
    codes = [0, 3, 130]
    place = Path("runs") / "ours-0.5"
    study._evaluate(place, "vizwiz", ["--data", "data/vizwiz", "--limit", "9"], notes)
    assert asked == [["eval", str(place), "--task", "vqa", "--dataset", "vizwiz", "--data",
                      "data/vizwiz", "--limit", "9"]]  # fmt: skip
    study._evaluate(place, "scienceqa", ["--data", "nowhere"], notes)
    assert notes.notes == ["'ours-0.5' was not evaluated on scienceqa (exit code 3)."]
    with pytest.raises(ResourceError, match="goes on"):
        study._evaluate(place, "scienceqa", ["--data", "data"], notes)


def test_llm_pruners_rows_are_narrowed_models(found, monkeypatch):
    """A model of slimsearch narrow is no run; asked, its answers stand in its own folder."""
    assert exhibits.narrowed(["table-3"]) == [0.3, 0.4]
    assert exhibits.narrowed(["table-3", "table-4"]) == [0.3, 0.4, 0.5]
    assert exhibits.narrowed(["table-1", "figure-1"]) == []
    told = {**found.results, "narrow-0.3": [evaluation("scienceqa", "narrow-0.3", 33.3)]}
    asked = replace(found, results=told, asked=("scienceqa",), narrowed=("narrow-0.3",))
    lines = {line.names: line.cells for line in exhibits.table_3(asked).lines}
    assert lines["0.3", "LLM-Pruner", "here"][-1].value == 33.3
    assert lines["0.4", "LLM-Pruner", "here"][-1].why.startswith("slimsearch narrow was not run")
    commands = []

    def run(command, **_):
        commands.append(command[3:])
        (found.folder / "narrow-0.4").mkdir()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(study.subprocess, "run", run)
    assert study._narrow(Settings(model="here"), 0.4, found.folder, Notes()) == "narrow-0.4"
    assert study._narrow(Settings(model="here"), 0.4, found.folder, Notes()) == "narrow-0.4"
    assert commands == [["narrow", "--from", str(found.folder / "narrow-0.4.toml")]]


def test_an_exhibit_that_is_not_there_is_refused_by_name():
    with pytest.raises(SettingsError, match="There is no 'table-5'"):
        study.exhibits("table-1, table-5")
    assert study.exhibits("figure-3, table-2") == ["table-2", "figure-3"]


def test_a_paper_of_real_runs(small, tmp_path):
    chosen = replace(small, rounds=1, candidates=3, finalists=1, survivors=2)
    folder = tmp_path / "paper"
    shown, sizes = "table-1, figure-3", ([2, 4], [12])
    rows = study.trials(chosen, study.exhibits(shown), *sizes)
    for name, row in rows.items():  # else each were a process of its own
        runs.search(replace(row.settings, out=str(folder / name)))
    place = folder / "ours-0.5" / results.FOLDER / "champion" / "scienceqa.json"
    results.write(place, evaluation("scienceqa", "champion", 61.25))
    done = replicating.replicate(chosen, shown, sizes, {}, "", folder, Watch())
    read = Reader((folder / replicating.PAGE).read_text("utf-8"))
    said = " ".join(read.words.split())
    assert "61.25" in said
    assert "1 round of 3 candidates" in said
    assert "80.45" in said
    assert "Table 3" not in said.replace("Tables 1 to 4", "")
    for name, one in done.outcomes.items():
        assert f"{one.figures['perplexity']:.2f}" in said, name
    facts = json.loads((folder / replicating.FACTS).read_text("utf-8"))
    cells = {tuple(line["names"]): line["cells"] for line in facts["tables"]["table-1"]["lines"]}
    assert cells["SlimLLaVA", "here"][1] == {"value": 61.25, "why": ""}
    assert cells["Uniform", "here"][1] == {"value": None, "why": "no ScienceQA at hand"}
    assert {file.name for file in (folder / "figures").iterdir()} >= {
        "figure-3-1.svg", "figure-3-1.png", "figure-3-2.svg",
    }  # fmt: skip
