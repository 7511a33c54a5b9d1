"""A run folder gives back what was put into it."""

import os
from dataclasses import replace
from math import inf

import pytest
import torch

from slimsearch import run, settings
from slimsearch.candidate import Candidate, ProjectorStep, Round, Score
from slimsearch.errors import RunError
from slimsearch.policy import Policy
from slimsearch.settings import Settings

GOOD = Score("1-01", (0, 2), 1.25, {"text_loss": 1.25}, 0.5, 0.1, 0)
BAD = Score("1-02", (1, 1), inf, failure="text_loss is not a finite number")
ROUND = Round(1, (GOOD, BAD), (1.0,), GOOD, 1, ProjectorStep(2.0, 1.5, True), 3.5)


@pytest.fixture
def folder(tmp_path):
    with run.create(tmp_path / "deep" / "run", Settings(rounds=3), {"model": "abc"}) as opened:
        opened.add_score(GOOD)
        opened.add_score(BAD)
        opened.add_round(ROUND)
        opened.add_round(replace(ROUND, index=2, step=None))
        opened.save_projector(1, {"weight.a": torch.ones(2)})
    return tmp_path / "deep" / "run"


def test_scores_and_rounds_come_back(folder):
    with run.reopen(folder) as opened:
        assert opened.start["fingerprint"] == {"model": "abc"}
        assert opened.closed(1) == ROUND
        assert opened.closed(2) == replace(ROUND, index=2, step=None)
        assert opened.closed(3) is None
        assert opened.finished is None
        assert opened.score_of(Candidate("1-01", (0, 2), Policy({})), 0) == GOOD
        assert opened.score_of(Candidate("1-02", (1, 1), Policy({})), 0) == BAD
        assert opened.score_of(Candidate("1-01", (0, 2), Policy({})), 1) is None
        assert torch.equal(opened.load_projector(1)["weight.a"], torch.ones(2))
        opened.add_end({"table": []})
        assert opened.finished == {"kind": "end", "table": []}
    records = run.records_of(folder)
    assert run.rounds_in(records)[0] == ROUND
    assert run.scores_in(records) == [GOOD, BAD]
    assert settings.read(folder / "settings.toml") == Settings(rounds=3)


def test_a_score_of_other_genes_is_refused(folder):
    with run.reopen(folder) as opened, pytest.raises(RunError, match="other genes"):
        opened.score_of(Candidate("1-01", (2, 0), Policy({})), 0)


def test_a_projector_that_was_never_saved(folder):
    with run.reopen(folder) as opened, pytest.raises(RunError, match=r"0007\.safetensors"):
        opened.load_projector(7)


def test_an_empty_folder_will_do_and_a_full_one_will_not(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with run.create(tmp_path / "empty", Settings(), {}):
        pass
    with pytest.raises(RunError, match="already holds files"):
        run.create(folder, Settings(), {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("mine")
    with pytest.raises(RunError) as caught:
        run.create(tmp_path / "other", Settings(), {})
    assert "resume" not in str(caught.value)


def test_two_at_once_are_kept_apart(folder):
    with run.reopen(folder), pytest.raises(RunError, match="in use by another process"):
        run.reopen(folder)
    with run.reopen(folder):
        pass


def test_a_watcher_needs_no_lock(folder):
    with run.reopen(folder):
        assert len(run.records_of(folder)) == 6


def test_what_is_no_run_folder(tmp_path, folder):
    with pytest.raises(RunError, match=r"has no settings\.toml"):
        run.reopen(tmp_path)
    os.unlink(folder / "journal.jsonl")
    with pytest.raises(RunError, match=r"has no journal\.jsonl"):
        run.records_of(folder)


def test_a_run_that_stopped_before_it_began(folder):
    (folder / "journal.jsonl").write_bytes(b"")
    with pytest.raises(RunError, match="stopped before it began"):
        run.reopen(folder)
    assert run.records_of(folder) == []


def test_a_run_of_another_format_is_refused(folder, monkeypatch):
    monkeypatch.setattr(run, "FORMAT", 2)
    with pytest.raises(RunError, match="has format 1, this slimsearch reads 2"):
        run.records_of(folder)
    with pytest.raises(RunError, match="has format 1"):
        run.reopen(folder)
