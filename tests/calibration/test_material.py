import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from slimsearch.calibration import Material, Turn, gather
from slimsearch.errors import CalibrationError
from slimsearch.settings import Settings


@pytest.fixture
def settings(here: Path, records) -> Settings:
    (here / "a.txt").write_text(" ".join(map(str, range(1000))))
    return Settings(model="somewhere", calibration="a.txt", pairs=records(12))


def test_the_demo_is_whole():
    found = gather(Settings())
    assert found.recipe == "demo"
    assert (found.segments, found.segment_length, found.held_segments) == (64, 64, 64)
    assert (len(found.pairs), len(found.held_pairs)) == (64, 200)
    assert len(found.text.split()) == 15_000
    assert len(found.held_text.split()) == 6_000
    assert "64 tokens long instead of the paper's 256" in found.notes[0]


def test_auto_is_ptb_for_other_models(here: Path):
    (here / "ptb.train.txt").write_text("one\ntwo\n")
    (here / "ptb.valid.txt").write_text("three\n")
    found = gather(Settings(model="somewhere"))
    assert (found.recipe, found.text, found.held_text) == ("ptb", "one two", "three")
    assert (found.segments, found.segment_length, found.pairs) == (64, 256, ())
    assert found.notes[-1] == "There are no image-text pairs: only text is calibrated on."


def test_settings_win_over_the_recipe(settings: Settings):
    found = gather(replace(settings, segments=3, segment_length=100, pair_count=4))
    assert (found.segments, found.segment_length) == (3, 100)
    assert (len(found.pairs), len(found.held_pairs)) == (4, 8)
    assert found.notes[:2] == (
        "Segments are 100 tokens long instead of the paper's 256: faster to score, less sure.",
        "There are 3 segments instead of the paper's 64.",
    )


def test_pairs_may_be_refused_or_given(settings: Settings):
    assert gather(replace(settings, pairs="none")).pairs == ()
    assert gather(replace(settings, pairs="auto")).pairs == ()
    assert len(gather(replace(settings, calibration="demo")).pairs) == 9
    assert gather(replace(settings, calibration="demo", pairs="none")).held_pairs == ()
    with pytest.raises(CalibrationError, match="Pairs are given as an empty path"):
        gather(replace(settings, pairs=""))


def test_a_recipe_of_the_users_own(here: Path, settings: Settings):
    (here / "deep").mkdir()
    (here / "deep/mine.toml").write_text(
        'held_pairs = 2\n[text]\nsource = "file"\nfile = "../a.txt"\n'
        '[pairs]\nsource = "file"\nfile = "../images"\n'
    )
    found = gather(Settings(model="somewhere", calibration="deep/mine.toml"))
    assert found.recipe == "mine"
    assert found.text.startswith("0 1 2 ")
    assert (len(found.pairs), len(found.held_pairs)) == (10, 2)


def test_the_same_settings_give_the_same_material(settings: Settings):
    first, again = gather(settings), gather(settings)
    assert first == again
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != gather(replace(settings, seed=1)).fingerprint()
    demo = Settings()
    assert gather(demo).fingerprint() == gather(demo).fingerprint()


def test_the_fingerprint_covers_everything(here: Path, settings: Settings):
    found = gather(settings)
    pair = found.pairs[0]
    other_turns = replace(pair, turns=(Turn("What?", None),))
    prints = {
        changed.fingerprint()
        for changed in (
            found,
            replace(found, text=found.text + "."),
            replace(found, held_text=found.held_text + "."),
            replace(found, text="", held_text=found.text + found.held_text),
            replace(found, segments=1),
            replace(found, segment_length=1),
            replace(found, held_segments=1),
            replace(found, pairs=found.pairs[1:]),
            replace(found, pairs=(other_turns, *found.pairs[1:])),
            replace(found, pairs=found.pairs + found.held_pairs, held_pairs=()),
        )
    }
    assert len(prints) == 10
    assert isinstance(pair.picture, Path)
    pair.picture.write_bytes(pair.picture.read_bytes() + b"\0")
    assert found.fingerprint() not in prints


def test_the_fingerprint_is_the_same_elsewhere(here: Path, settings: Settings, monkeypatch):
    before = gather(settings).fingerprint()
    moved = here / "moved"
    moved.mkdir()
    for name in ("a.txt", "pairs.json", "images"):
        (here / name).rename(moved / name)
    monkeypatch.chdir("/")
    there = replace(settings, calibration=f"{moved}/a.txt", pairs=f"{moved}/pairs.json")
    assert gather(there).fingerprint() == before


def test_a_picture_that_vanishes_is_named(here: Path, settings: Settings):
    found: Material = gather(settings)
    pair = found.pairs[0]
    assert isinstance(pair.picture, Path)
    pair.picture.unlink()
    with pytest.raises(CalibrationError, match="cannot be read any more"):
        found.fingerprint()
    with pytest.raises(CalibrationError, match="there is no picture"):
        pair.open()


def test_no_model_library_is_loaded():
    code = (
        "import sys; from slimsearch.calibration import gather;"
        "from slimsearch.settings import Settings; gather(Settings());"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_more_sets_are_told_apart(here: Path, settings: Settings):
    tiny.pairs(here / "more", 12)
    (here / "lines.jsonl").write_text('{"text": "one more text"}\n' * 40)
    (here / "seen.jsonl").write_text('{"image": "0.png", "question": "What?", "answer": "red"}\n')
    tiny.picture(0).save(here / "0.png")
    names = ("more", "more/pairs.json", "lines.jsonl", "seen.jsonl")
    chosen = replace(settings, also=", ".join(str(here / name) for name in names))
    folder, records, text, pairs = gather(chosen).also
    assert [also.name for also in (folder, records, text, pairs)] == [str(here / n) for n in names]
    assert len(folder.pairs) == len(records.pairs) == 12
    assert text.text.count("one more text") > 30
    assert not text.pairs
    assert pairs.pairs[0].turns[0].answer == "red"
    assert gather(settings).also == ()
    assert gather(chosen).fingerprint() != gather(settings).fingerprint()


def test_a_set_that_is_not_there_is_refused(settings: Settings):
    with pytest.raises(CalibrationError, match="nowhere"):
        gather(replace(settings, also="nowhere.json"))
    with pytest.raises(CalibrationError, match="nowhere"):
        gather(replace(settings, also="nowhere.txt"))
