"""A run's champion, baseline and dense model are exported and timed as one command does it."""

import json
from dataclasses import replace

import pytest

from slimsearch.api import timing
from slimsearch.api.runs import search
from slimsearch.errors import RunError
from slimsearch.searching.watch import Watch


def test_a_run_is_timed_beside_its_baseline_and_its_dense_model(small, tmp_path):
    run = tmp_path / "run"
    search(replace(small, rounds=1, candidates=2, finalists=0, final_steps=1, out=str(run),
                   skip_baselines=True))  # fmt: skip
    found = timing.bench(run, ["hf"], [4], 2, 1, 1, {}, Watch())
    assert {row.model for row in found.rows} == {"export", "uniform", "against"}
    kept = json.loads((run / timing.FILE).read_text("utf-8"))
    assert kept == json.loads(json.dumps(found.as_dict()))
    assert sorted(place.name for place in run.iterdir() if place.name.startswith(".")) == []


def test_what_is_no_run_is_an_export_and_an_open_run_is_refused(tmp_path):
    assert not timing.is_run(tmp_path)
    (tmp_path / "journal.jsonl").write_text("")
    with pytest.raises(RunError):
        timing.is_run(tmp_path)
