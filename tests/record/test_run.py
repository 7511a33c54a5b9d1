"""A run folder gives back what was put into it."""

import os
from dataclasses import replace
from math import inf
from pathlib import Path
from zlib import crc32

import pytest
import tiny
import torch

from slimsearch import settings
from slimsearch.errors import ResourceError, RunError
from slimsearch.policy import Policy
from slimsearch.record import history, run
from slimsearch.record.candidate import Candidate, ProjectorStep, Round, Score
from slimsearch.settings import Settings

GOOD = Score("1-01", (0, 2), 1.25, {"text_loss": 1.25}, 0.5, 0.125, 0)
BAD = Score("1-02", (1, 1), inf, failure="text_loss is not a finite number")
ROUND = Round(1, (GOOD, BAD), (1.0,), GOOD, 1, ProjectorStep(2.0, 1.5, True), 3.5)


@pytest.fixture
def folder(tmp_path):
    with run.create(tmp_path / "deep" / "run", Settings(rounds=3), {"model": "abc"}) as opened:
        opened.add_score(GOOD)
        opened.add_score(BAD)
        opened.add_round(ROUND)
        opened.add_round(replace(ROUND, index=2, step=None, seconds=0.5))
        opened.save_projector(1, {"weight.a": torch.ones(2)})
    return tmp_path / "deep" / "run"


def test_scores_and_rounds_come_back(folder):
    with run.reopen(folder) as opened:
        found = opened.history
        assert found.fingerprint == {"model": "abc"}
        assert found.rounds == {1: ROUND, 2: replace(ROUND, index=2, step=None)}
        assert found.end is None
        assert opened.score_of(Candidate("1-01", (0, 2), Policy({})), 0) == GOOD
        assert opened.score_of(Candidate("1-02", (1, 1), Policy({})), 0) == BAD
        assert opened.score_of(Candidate("1-01", (0, 2), Policy({})), 1) is None
        assert torch.equal(opened.load_projector(1)["weight.a"], torch.ones(2))
        opened.add_end({"table": []})
        assert opened.history.end["table"] == []
    read = history.read(folder)
    assert read.rounds[1] == ROUND
    assert list(read.scores.values()) == [GOOD, BAD]
    assert read.failures == [BAD]
    assert read.end["table"] == []
    assert settings.read(folder / "settings.toml") == Settings(rounds=3)


def test_what_a_search_gave_up_on_is_told_until_it_goes_on(folder):
    lost = [replace(BAD, candidate=name, failure=f"{name} is lost") for name in ("2-01", "2-02")]
    with run.reopen(folder) as opened:
        for score in lost:
            opened.add_score(score)
        opened.give_up(lost)
        for told in (opened.history, history.read(folder), history.glance(folder, 1)):
            assert told.given_up == lost
            assert told.failures == [BAD]
        opened.add_score(replace(GOOD, candidate="2-01"))
    for told in (history.read(folder), history.glance(folder, 1)):
        assert told.given_up == []


@pytest.mark.parametrize("most", [0, 1, 5])
def test_a_glance_tells_what_a_status_needs(folder, most):
    """Of sound scores and of rounds before the last few it only counts."""
    with run.reopen(folder) as opened:
        opened.add_score(replace(GOOD, candidate="2-01", share=0.5))
        opened.add_score(replace(GOOD, candidate="2-01"))
        opened.add_score(replace(BAD, candidate="2-02"))
        opened.give_up([replace(BAD, candidate="2-02")])
        opened.add_raised("level store", {"blocks.0.q": 0.1})
    whole, glance = history.read(folder), history.glance(folder, most)
    assert history.summary(glance, 3) == history.summary(whole, 3)
    assert (glance.scored, glance.closed) == (3, 2)
    assert glance.failures == whole.failures == [BAD]
    assert glance.raised == whole.raised
    assert list(glance.rounds.items()) == list(whole.rounds.items())[max(0, 2 - most) :]
    assert [score.candidate for score in glance.scores.values()] == ["1-02"]
    file = folder / "journal.jsonl"
    content = bytearray(file.read_bytes())
    place = content.index(b"2-01")
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"journal.jsonl is damaged at byte \d+ \(line 7\)"):
        history.glance(folder, most)


def test_how_long_things_took_stands_beside_the_journal(folder):
    assert b"seconds" not in (folder / "journal.jsonl").read_bytes()
    times = history.times(folder)
    assert times == {"round": {"1": 3.5, "2": 0.5}, "score": {"1-01": 0.125, "1-02": 0.0},
                     "stage": {}}  # fmt: skip
    with (folder / "times.jsonl").open("a") as stream:
        stream.write('nonsense\n{"round":"1","seconds":1.5}\n{"round":"2","sec')
    assert history.times(folder)["round"] == {"1": 5.0, "2": 0.5}
    os.unlink(folder / "times.jsonl")
    assert history.read(folder).rounds[1].seconds == 0


def test_a_score_of_other_genes_is_refused(folder):
    with run.reopen(folder) as opened, pytest.raises(RunError, match="other genes"):
        opened.score_of(Candidate("1-01", (2, 0), Policy({})), 0)


def test_a_projector_that_was_never_saved(folder):
    with run.reopen(folder) as opened, pytest.raises(RunError, match=r"0007\.safetensors"):
        opened.load_projector(7)


def test_a_projector_saved_again_is_one_line(folder):
    """A step that was cut off behind its line is taken again, to the same bytes."""
    before = (folder / "journal.jsonl").read_bytes()
    with run.reopen(folder) as opened:
        opened.save_projector(1, {"weight.a": torch.ones(2)})
        assert (folder / "journal.jsonl").read_bytes() == before
        opened.save_projector(1, {"weight.a": torch.zeros(2)})
        assert torch.equal(opened.load_projector(1)["weight.a"], torch.zeros(2))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:50], "is cut short: it ends at byte 50 of {size}"),
        (lambda content: content + b"x", "goes on behind byte {size}"),
        (lambda content: content[:-1] + b"x", "is damaged"),
        (lambda content: None, "is missing"),
    ],
)
def test_a_damaged_artefact_is_refused_with_the_way_out(folder, damage, said):
    file = folder / "projectors" / "0001.safetensors"
    content = file.read_bytes()
    damaged = damage(content)
    file.unlink()
    if damaged is not None:
        file.write_bytes(damaged)
    offset = (folder / "journal.jsonl").read_bytes().index(b'"kind":"projector"') - 10
    with pytest.raises(RunError) as caught:
        run.reopen(folder)
    assert not history.in_use(folder)
    assert f"{file} {said.format(size=len(content))}" in str(caught.value)
    assert f"at byte {offset} " in str(caught.value)


def test_candidates_of_a_round_that_failed_as_a_whole_are_tried_again(folder):
    with run.reopen(folder) as opened:
        opened.give_up([BAD])
        assert opened.score_of(Candidate("1-02", (1, 1), Policy({})), 0) is None
        assert opened.score_of(Candidate("1-01", (0, 2), Policy({})), 0) is not None
    assert list(history.read(folder).scores) == [("1-01", 0, 1.0)]


def test_an_empty_folder_will_do_and_a_full_one_will_not(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with run.create(tmp_path / "empty", Settings(), {}):
        pass
    with pytest.raises(RunError) as caught:
        run.create(folder, Settings(), {})
    for part in ("already holds a search: interrupted; 2 of 3 rounds closed, "
                 "2 candidates scored, 1 failed",
                 f"slimsearch resume {folder}"):  # fmt: skip
        assert part in str(caught.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("mine")
    with pytest.raises(RunError, match=r"already holds files \(mine\)") as caught:
        run.create(tmp_path / "other", Settings(), {})
    assert "resume" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "-rf", "a\x1b[2J", "a\u202eb", "x" * 300])
def test_names_that_cannot_be(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResourceError if len(name) > 100 else RunError):
        run.check_free(Path(name))
    assert list(tmp_path.iterdir()) == []


def test_what_a_stop_before_the_first_line_leaves_is_no_hindrance(tmp_path):
    for name in ("lock", "settings.toml", "journal.jsonl", ".settings.toml-x.partial"):
        (tmp_path / name).write_bytes(b"abcdef")
    with run.create(tmp_path, Settings(), {"model": "abc"}):
        pass
    assert tiny.records(tmp_path) == [
        {"kind": "start", "format": run.FORMAT, "fingerprint": {"model": "abc"}}
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "journal.jsonl", "lock", "projectors", "settings.toml"]  # fmt: skip


def test_what_a_killed_process_had_half_written_is_swept_away(folder):
    (folder / ".levels-x.partial").mkdir()
    (folder / ".levels-x.partial" / "0000.safetensors").write_bytes(b"x")
    (folder / "projectors" / ".0002.safetensors-x.partial").write_bytes(b"x")
    with run.reopen(folder):
        pass
    assert [path for path in folder.rglob("*") if path.name.endswith(".partial")] == []


def test_a_run_in_use_is_named_as_a_shell_takes_it(folder):
    moved = folder.rename(folder.with_name("my first"))
    with run.reopen(moved), pytest.raises(RunError, match=f"slimsearch status '{moved}'"):
        run.reopen(moved)


def test_two_at_once_are_kept_apart(folder):
    with run.reopen(folder), pytest.raises(RunError, match="in use by another process"):
        run.reopen(folder)
    with run.reopen(folder):
        pass


def test_a_watcher_needs_no_lock(folder):
    assert history.state(history.read(folder)) == "interrupted"
    with run.reopen(folder):
        assert history.state(history.read(folder)) == "going on"
    assert not history.in_use(folder)


@pytest.mark.parametrize("name", ["journal.jsonl", "lock", "projectors", "levels", "model"])
def test_links_in_a_run_folder_are_refused(tmp_path, folder, name):
    """Else a run from elsewhere could have files of ours cut off or overwritten."""
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    place = folder / name
    if place.is_dir():
        place.rename(tmp_path / "moved")
    place.unlink(missing_ok=True)
    place.symlink_to(mine)
    with pytest.raises(RunError, match=f"{name} is a link"):
        run.reopen(folder)
    with pytest.raises(RunError, match=f"{name} is a link"):
        history.read(folder)
    assert mine.read_bytes() == b"mine"


def test_what_is_no_run_folder(tmp_path, folder):
    with pytest.raises(RunError, match=r"has no settings\.toml"):
        run.reopen(tmp_path)
    os.unlink(folder / "journal.jsonl")
    with pytest.raises(RunError, match=r"has no journal\.jsonl"):
        history.read(folder)


def test_a_run_that_stopped_before_it_began(folder):
    (folder / "journal.jsonl").write_bytes(b"abc")
    with pytest.raises(RunError, match=r"stopped before it began.*ends at byte 3 without"):
        run.reopen(folder)
    assert history.read(folder).start == {}


def test_a_run_of_another_format_is_refused(folder, monkeypatch):
    monkeypatch.setattr(history, "FORMAT", 7)
    with pytest.raises(RunError, match="has format 2, this slimsearch reads 7"):
        history.read(folder)
    with pytest.raises(RunError, match="has format 2"):
        run.reopen(folder)
    assert not history.in_use(folder)


@pytest.mark.parametrize(
    "record",
    ['{"kind":"score"}', '{"kind":"score","candidate":"x","genes":3,"total":1.0}', '{"no":"kind"}',
     '{"kind":"round","index":1}', '{"kind":"unheard of"}', '{"kind":["round"]}',
     '{"kind":"gave up","candidates":["9-09"],"projector":0,"exact":false}'],
)  # fmt: skip
def test_a_sound_line_that_makes_no_sense_is_refused_with_its_place(folder, record):
    file = folder / "journal.jsonl"
    size = file.stat().st_size
    with file.open("ab") as stream:
        stream.write(b"%08x %s\n" % (crc32(record.encode()), record.encode()))
    for opens in (history.read, run.reopen):
        with pytest.raises(RunError, match=rf"journal\.jsonl holds at byte {size} \(line 7\)"):
            opens(folder)
    assert not history.in_use(folder)
