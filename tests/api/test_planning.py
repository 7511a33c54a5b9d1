"""A plan counts what a run will prune and keep, without touching anything."""

from dataclasses import replace

import pytest

from slimsearch.api import planning, runs
from slimsearch.searching.watch import Watch


def test_a_plan_says_what_the_run_does(small, tmp_path):
    plan = planning.plan(small, Watch())
    assert (plan.model_type, plan.blocks, plan.matrices, plan.genes) == ("llava", 2, 14, 14)
    assert plan.prunable == 2 * (4 * 32 * 32 + 3 * 32 * 48)
    assert plan.parameters > plan.prunable
    assert plan.levels == (0.4, 0.45, 0.5, 0.55, 0.6)
    assert plan.candidates == 8
    assert all(seconds >= 0 for seconds in plan.seconds.values())
    assert sum(plan.seconds.values()) > 0
    shown = dict(plan.lines())
    assert plan.store_in == "disk"
    assert shown["level store"].endswith("on disk, mapped: memory holds what is being read")
    assert shown["prunable"].startswith(f"{plan.prunable:,}")
    assert plan.times()[-1][0] == "in all"
    assert float(plan.times()[-1][1]) == pytest.approx(sum(plan.seconds.values()), abs=0.06)


def test_the_level_store_is_as_large_as_planned(small, tmp_path):
    plan = planning.plan(small, Watch())
    found = runs.search(replace(small, rounds=1, out=str(tmp_path / "run")))
    stored = sum(f.stat().st_size for f in (found.folder / "levels").iterdir())
    assert plan.store_bytes == pytest.approx(stored, rel=0.35)  # files have headers
    assert plan.store_bytes < stored


def test_a_plan_for_text_alone_trains_no_projector(llama, text_file, small):
    plan = planning.plan(
        replace(small, model=str(llama), pairs="auto", calibration=str(text_file)), Watch()
    )
    assert plan.seconds["projector"] == 0
    assert plan.seconds["polish"] > 0  # of the gains
    assert plan.model_type == "llama"


def test_a_plan_leaves_the_folder_alone(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planning.plan(small, Watch())
    assert list(tmp_path.iterdir()) == []


def test_a_uniform_policy_can_be_planned(small):
    plan = planning.plan(replace(small, policy="uniform"), Watch())
    assert plan.levels == (0.5,)
