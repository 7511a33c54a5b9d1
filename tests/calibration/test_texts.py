import json
import os
from pathlib import Path

import pytest

from slimsearch.calibration import texts
from slimsearch.calibration.recipe import DemoText, FileText, HubText
from slimsearch.calibration.textfile import read_text
from slimsearch.calibration.texts import gather_texts
from slimsearch.errors import CalibrationError

WORDS = " ".join(f"word{number}" for number in range(1000))


def test_plain_text_is_read_as_it_is(here: Path):
    (here / "a.txt").write_bytes(b"\xef\xbb\xbf one\r\n two\n")
    assert read_text(here / "a.txt", "", 100) == (" one\n two\n", False)


def test_lines_are_joined_where_a_recipe_says_so(here: Path):
    (here / "a.txt").write_text(" one\n two \n\n three\n")
    assert read_text(here / "a.txt", " ", 100) == ("one two three", False)


def test_documents_are_strings_or_objects(here: Path):
    (here / "a.jsonl").write_text('\ufeff"one"\n\n{"text": "two", "url": 3}\n')
    assert read_text(here / "a.jsonl", "", 100) == ("one\n\ntwo", False)


@pytest.mark.parametrize("limit", range(1, 9))
def test_a_long_file_is_cut_between_characters(here: Path, limit: int):
    (here / "a.txt").write_text("aé€😀z", "utf-8")  # 1 + 2 + 3 + 4 + 1 bytes
    text, cut = read_text(here / "a.txt", "", limit)
    assert cut
    assert text == {1: "a", 2: "a", 3: "aé", 4: "aé", 5: "aé"}.get(limit, "aé€")


def test_a_long_jsonl_is_cut_between_lines(here: Path):
    (here / "a.jsonl").write_text('"one"\n"two"\n"three"\n')
    assert read_text(here / "a.jsonl", "", 12) == ("one\n\ntwo", True)
    assert read_text(here / "a.jsonl", "", 17) == ("one\n\ntwo", True)
    assert read_text(here / "a.jsonl", "", 20) == ("one\n\ntwo\n\nthree", False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt holds no text."),
        ("a.txt", b" \n\t\n", "a.txt holds no text."),
        ("a.txt", b"caf\xe9 au lait", "a.txt is not UTF-8: byte 3 is 0xe9."),
        ("a.txt", b"\xef\xbb\xbfcaf\xe9", "a.txt is not UTF-8: byte 6 is 0xe9."),
        ("a.txt", b"cut \xe2\x82", "a.txt is not UTF-8: byte 4 is 0xe2."),
        ("a.txt", b"word\0word", "a.txt is no text but binary: byte 4 is zero."),
        ("a.txt", "word".encode("utf-16"), "a.txt is UTF-16, not UTF-8: byte 3 is zero."),
        ("a.txt", b"\x01\x02\x03 word", "3 of 8 bytes are control characters."),
        ("a.jsonl", b'"one"\n{"text": \n', "a.jsonl, line 2 is no JSON: "),
        ("a.jsonl", b'"one"\n\n{"txt": "two"}', "a.jsonl, line 3 has no text"),
        ("a.jsonl", b"7", "a.jsonl, line 1 has no text"),
        ("a.jsonl", b'{"text": null}', "a.jsonl, line 1 has no text"),
        ("a.jsonl", b'"one"\n"caf\xe9"', "a.jsonl, line 2 is not UTF-8 at byte 4."),
        ("a.jsonl", b'"\\ud800"', "a.jsonl, line 1 holds half a surrogate pair"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1 is no JSON: "),
        ("a.jsonl", b'"long"' + b" " * 2000, "a.jsonl holds no text within its first 1024 bytes."),
        ("a.jsonl", b'{"text": ""}', "a.jsonl holds no text."),
    ],
)
def test_what_is_no_text_is_refused(here: Path, name: str, content: bytes, message: str):
    (here / name).write_bytes(content)
    limit = 1 << 20 if content.startswith(b"[[") else 1024
    with pytest.raises(CalibrationError) as refusal:
        read_text(here / name, "", limit)
    assert message in str(refusal.value)


def test_what_is_no_file_is_refused(here: Path):
    (here / "folder.txt").mkdir()
    os.mkfifo(here / "pipe.txt")
    for name, message in (
        ("none.txt", "There is no text file"),
        ("a" * 300 + ".txt", "There is no text file"),
        ("folder.txt", "folder.txt is no file"),
        ("pipe.txt", "pipe.txt is no file"),
    ):
        with pytest.raises(CalibrationError, match=message):
            gather_texts(FileText(name), 0)


def test_the_last_tenth_is_kept_for_evaluation(here: Path):
    (here / "a.txt").write_text(WORDS)
    found = gather_texts(FileText("a.txt"), 0)
    assert f"{found.text} {found.held}" == WORDS
    assert 0.09 < len(found.held) / len(WORDS) <= 0.1
    assert found.held.startswith("word")
    assert found.origin == "a.txt"
    assert found.notes == ("The last tenth of a.txt is kept for evaluation.",)


def test_one_word_stays_whole(here: Path):
    (here / "a.txt").write_text("word" * 100)
    found = gather_texts(FileText("a.txt"), 0)
    assert (found.text, found.held) == ("word" * 100, "")
    assert found.notes == ("a.txt is too short to keep a tenth of it for evaluation.",)


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_a_sibling_is_the_evaluation_text(here: Path, suffix: str):
    (here / f"x.train.{suffix}").write_text(json.dumps("to learn"))
    (here / f"x.valid.{suffix}").write_text(json.dumps("to check"))
    found = gather_texts(FileText(f"x.train.{suffix}"), 0)
    assert "learn" in found.text
    assert "check" in found.held
    assert found.notes == (f"x.valid.{suffix} is kept for evaluation.",)


def test_a_bad_sibling_is_refused(here: Path):
    (here / "x.train.txt").write_text("to learn")
    (here / "x.valid.txt").write_text("")
    with pytest.raises(CalibrationError, match=r"x\.valid\.txt holds no text"):
        gather_texts(FileText("x.train.txt"), 0)


def test_no_more_than_the_limit_is_used(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(texts, "LIMIT", 1 << 20)
    (here / "a.txt").write_text("word " * 300_000)
    found = gather_texts(FileText("a.txt"), 0)
    assert len(found.text) + len(found.held) <= 1 << 20
    assert found.notes[0] == "a.txt is longer than 1 MiB; only so much of it is used."


@pytest.mark.parametrize("folder", ["", "calibration/"])
def test_a_local_file_spares_the_hub(here: Path, folder: str):
    (here / "calibration").mkdir()
    (here / f"{folder}ptb.train.txt").write_text(" one \n two \n")
    (here / f"{folder}ptb.valid.txt").write_text(" three \n four \n")
    source = HubText("nobody/nothing", "a.parquet", "b.parquet", "s", " ", local="ptb.train.txt")
    found = gather_texts(source, 0)
    assert (found.text, found.held) == ("one two", "three four")
    assert found.origin == str(here / f"{folder}ptb.train.txt")


def test_demo_text_follows_the_seed_but_its_yardstick_does_not():
    source = DemoText(words=300, held_words=200)
    first, again, other = (gather_texts(source, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.text != other.text
    assert first.held == other.held
    assert not set(first.text.split("\n")[:-1]) & set(first.held.split("\n"))
