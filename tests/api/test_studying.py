"""Runs side by side: made once, read afterwards, gone on with."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import tiny
import torch

from slimsearch import plugins
from slimsearch.api import comparing, runs, studying, sweeping
from slimsearch.api.studying import Trial
from slimsearch.errors import ResourceError, RunError, SettingsError
from slimsearch.record import history
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings, strategy_of


@pytest.fixture
def quick(small) -> Settings:
    return replace(small, rounds=1, candidates=2, survivors=2, skip_baselines=True)


def test_rows_come_from_the_shelf_and_differ_from_ours_in_what_they_say(small):
    rows = {row.name: row.settings for row in comparing.trials(small)}
    ours = rows["searched"]
    for solver in plugins.names("solvers"):
        assert rows[f"uniform-{solver}"].solver == solver
    for name in plugins.names("strategies"):
        if name not in ("pareto", strategy_of(small)):
            assert rows[f"{name}-polished"] == replace(ours, strategy=name)
            assert rows[name] == replace(ours, strategy=name, projector_steps=0, polish="none")
    assert "pareto" not in rows
    assert rows["norm-term"] == replace(ours, eta=0.5)
    assert rows["even-weights"] == replace(ours, neighbours=0)
    assert rows["stitched"] == replace(ours, finalists=0)
    assert len(rows) == len(comparing.trials(small))


@pytest.mark.parametrize("more", [{"eta": 0.25}, {"objective": "paper"}, {"pairs": "none"}])
def test_what_a_norm_term_is_worth_is_asked_whether_ours_has_one_or_not(small, more):
    assert "no-norm-term" not in {row.name for row in comparing.trials(small)}
    rows = {row.name: row.settings for row in comparing.trials(replace(small, **more))}
    assert rows["no-norm-term"] == replace(rows["searched"], eta=0.0)
    assert "norm-term" not in rows


def test_a_comparison_is_made_once_and_then_read(quick, tmp_path, monkeypatch):
    only = "uniform-magnitude, stitched"
    found = comparing.compare(quick, only, tmp_path, Watch())
    assert [row.name for row in found] == ["dense", "uniform-magnitude", "stitched"]
    for row in found[1:]:
        end = history.read(tmp_path / row.name).end
        assert row.figures == end["table"][-1]["figures"]
        assert row.sparsity == pytest.approx(0.5, abs=0.02)
        assert row.seconds > 0.5
        assert 50e6 < row.peak_bytes < 50e9
    told = json.loads((tmp_path / "compare.json").read_text())
    assert [row["name"] for row in told["rows"]] == [row.name for row in found]
    lines = (tmp_path / "compare.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(found)
    monkeypatch.setattr(studying.subprocess, "Popen", None)  # nothing is run again
    assert comparing.compare(quick, only, tmp_path, Watch()) == found
    with pytest.raises(RunError, match=r"other settings .seed"):
        comparing.compare(replace(quick, seed=1), only, tmp_path, Watch())


def test_a_narrowed_model_and_trained_projectors_are_rows(quick, tmp_path, load):
    only = "uniform-magnitude, uniform-magnitude-trained, uniform-magnitude-fresh, narrowed-trained"
    chosen = replace(quick, final_steps=25)
    found = {row.name: row for row in comparing.compare(chosen, only, tmp_path, Watch())}
    plain, trained, fresh, narrowed = (found[name.strip()] for name in only.split(","))
    assert trained.figures["answer_loss"] != plain.figures["answer_loss"]
    old, after, anew = (
        load(tmp_path / row.name / "model").weights() for row in (plain, trained, fresh)
    )
    moved = [name for name in old if not torch.equal(old[name], after[name])]
    assert moved
    assert all("gain" not in name for name in moved)
    assert any((anew[n] - old[n]).abs().mean() > (after[n] - old[n]).abs().mean() for n in moved)
    assert narrowed.sparsity == pytest.approx(0.5, abs=0.05)
    told = json.loads((tmp_path / "narrowed-trained" / "slimsearch.json").read_text())
    assert [row["name"] for row in told["table"]] == ["dense", "narrowed", "narrowed + projector"]
    assert narrowed.figures == told["table"][-1]["figures"]
    with pytest.raises(RunError, match=r"other settings .seed"):
        comparing.compare(replace(chosen, seed=1), "narrowed-trained", tmp_path, Watch())


def test_an_interrupted_run_goes_on(quick, tmp_path):
    trial = Trial("one", "", runs.anchored(quick))
    runs.search(replace(trial.settings, out=str(tmp_path / "whole" / "one")))
    place = tmp_path / "cut" / "one"
    place.parent.mkdir()
    (tmp_path / "whole" / "one").rename(place)
    journal = place / history.JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    figures = history.read(place).end["table"][-1]["figures"]
    journal.write_bytes(b"".join(lines[:-1]))  # as if it had been killed just before its end
    (found,) = studying.carry_out([trial], tmp_path / "cut", Watch())
    assert found.figures == figures
    assert journal.read_bytes().splitlines(keepends=True)[:-1] == lines[:-1]


def test_a_run_that_fails_is_left_out_and_said(quick, tmp_path, capfd):
    watch = tiny.Notes()
    bad = Trial("bad", "", replace(quick, pairs=str(tmp_path / "none.json")))
    good = Trial("good", "", quick)
    found = studying.carry_out([bad, good], tmp_path, watch)
    assert [row.name for row in found] == ["good"]
    assert any("'bad' failed" in note for note in watch.notes)
    with pytest.raises(ResourceError, match="Every run failed"):
        studying.carry_out([bad], tmp_path, Watch())
    assert "none.json" in capfd.readouterr().err


def test_rows_that_are_not_there_are_refused(small):
    rows = comparing.trials(small)
    assert [row.name for row in studying.chosen(rows, "stitched,searched")] == [
        "searched", "stitched",
    ]  # fmt: skip
    assert studying.chosen(rows, "") == rows
    with pytest.raises(SettingsError, match=r"no row 'serched'.*searched"):
        studying.chosen(rows, "serched")


def test_a_sweep_is_drawn(quick, tmp_path):
    chosen = replace(quick, strategy="uniform", projector_steps=0)
    found = sweeping.sweep(chosen, [2, 4], [12], tmp_path, Watch())
    assert [row.name for row in found] == ["2x12", "4x12"]
    told = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["figures"] for row in told["rows"]] == [row.figures for row in found]
    drawn = ElementTree.parse(tmp_path / "sweep.svg").getroot()
    circles = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 6  # two points and a legend in each of two figures


@pytest.mark.parametrize("text", ["", "a", "8,0", "8;16"])
def test_numbers_that_cannot_be_read_are_refused(text):
    with pytest.raises(SettingsError, match="--segments"):
        sweeping.numbers(text, "--segments")
