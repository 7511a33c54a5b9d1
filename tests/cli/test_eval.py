"""slimsearch eval as it is typed, from a search to a card."""

import json

import official
import pytest


def test_from_answers_to_a_table(slimsearch, tmp_path):
    official.pope(tmp_path / "pope")
    official.pairs(tmp_path / "pairs")
    said = slimsearch("eval", "demo", "--task", "pope", "--data", tmp_path / "pope", "--out",
                      tmp_path / "kept", "--instruction", "", "--limit", 7)  # fmt: skip
    assert said.code == 0, said.err
    assert "mean_f1" in said.out
    assert "demo: pope, 7 questions" in said.out
    assert (tmp_path / "kept" / "demo" / "pope-limit7.jsonl").is_file()
    file = tmp_path / "pairs" / "pairs.json"
    said = slimsearch("eval", "demo", "--task", "pairs", "--data", file, "--out",
                      tmp_path / "kept", "--json")  # fmt: skip
    found = json.loads(said.out)
    assert found["figures"]["accuracy"]["value"] > 80
    assert set(found["breakdown"]) <= {
        "colour",
        "shape",
        "count",
        "existence",
        "position",
        "choice",
    }


def test_two_files_of_answers_are_compared(slimsearch, tmp_path):
    official.scienceqa(tmp_path)
    for name, letters in (("one", "ABCDAB"), ("two", "AAAAAA")):
        answers = {str(10 + n): letter for n, letter in enumerate(letters)}
        (tmp_path / f"{name}.json").write_text(json.dumps(answers), "utf-8")
    said = slimsearch("eval", "--task", "scienceqa", "--data", tmp_path, "--answers",
                      tmp_path / "one.json", "--against", tmp_path / "two.json")  # fmt: skip
    assert said.code == 0, said.err
    assert "Less two, on 6 questions" in said.out
    assert "McNemar's exact test: p = " in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval", "demo"), "Say what to ask: --task llava_bench, mme, mmvet, pairs"),
        (("eval", "demo", "--task", "pope"), "Say where the questions are with --data"),
        (("eval", "--task", "pope"), "Give a model, run or export to ask, or --answers FILE"),
        (
            ("eval", "demo", "--task", "mmvet", "--judge", "http://x/v1", "--judge-price", "2"),
            "--judge-price 2 cannot be: give IN,OUT",
        ),
    ],
)
def test_what_is_missing_is_said(slimsearch, words, said):
    found = slimsearch(*words)
    assert found.code in (2, 3)
    assert said in found.err
