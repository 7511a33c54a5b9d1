"""What is printed: progress to stderr, results to stdout, text as it is."""

import json
from math import inf

import pytest

from slimsearch import display
from slimsearch.display import Display
from slimsearch.record.candidate import ProjectorStep, Round, Score

GOOD = Score("1-01", (0,), 1.25, {"text_loss": 1.0, "answer_loss": 0.25}, 0.5)
ROUND = Round(1, (GOOD,), (1.0,), GOOD, 1, ProjectorStep(2.0, 1.5, True), 3.5)


def test_a_round_is_one_plain_line_under_one_heading(capsys):
    with Display() as shown:
        shown.closed(ROUND)
        shown.closed(ROUND)
    said = capsys.readouterr()
    assert said.out == ""
    heading, *rows = said.err.splitlines()
    assert heading.split()[:3] == ["round", "champion", "score"]
    assert len(rows) == 2
    assert rows[0].split() == ["1", "1-01", "1.2500", "1.0000", "0.2500", "0.5000", "moved", "3.5"]


def test_stages_notes_and_failures_are_said(capsys):
    with Display() as shown, shown.stage("search", 2) as advance:
        advance()
        with shown.stage("projector"):
            shown.note("a [bold]note[/bold] :smile:")
        shown.scored(Score("1-02", (0,), inf, failure="text_loss is not a finite number"))
    said = capsys.readouterr().err.splitlines()
    assert said == ["search ...", "note: a [bold]note[/bold] :smile:",
                    "candidate 1-02 failed: text_loss is not a finite number"]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["plain", "[red]x[/red]", ":cat: and :smile:", "a" * 500, "a\ttab and  spaces", "[1] {'a': 3}"],
)
def test_results_are_printed_as_they_are(capsys, text):
    display.say(text)
    assert capsys.readouterr().out == text + "\n"


def test_json_survives_printing(capsys):
    facts = {"path": "/a/:dog:/[b]/" + "long " * 60, "n": [1.5, None, True]}
    display.say(json.dumps(facts, indent=2))
    assert json.loads(capsys.readouterr().out) == facts


def test_the_final_table(capsys):
    display.results(
        [
            {
                "name": "dense",
                "sparsity": 0.0,
                "figures": {"perplexity": 12.3456, "accuracy": 0.967},
            },
            {"name": "searched", "sparsity": 0.5, "figures": {"perplexity": 15.0}},
        ]
    )
    said = capsys.readouterr().out
    assert "text perplexity" in said
    assert "VQA loss" not in said
    row = next(line for line in said.splitlines() if "dense" in line)
    assert ["12.346" in row, "96.7%" in row, "0.000" in row] == [True] * 3
    row = next(line for line in said.splitlines() if "searched" in line)
    assert "-" in row
    assert "0.500" in row


def test_bars_are_as_long_as_their_values(capsys):
    display.bars("[layer_sparsity]", {"blocks.0": 0.5, "blocks.10": 1.0, "x": 0.0})
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == "[layer_sparsity]"
    assert [row.count("█") for row in rows] == [25, 50, 0]
    assert [row.count("·") for row in rows] == [25, 0, 50]
    assert rows[0].startswith("blocks.0   0.500")


def test_round_cells_without_a_projector_step():
    cells = display.round_cells(Round(2, (GOOD,), (1.0,), GOOD, 0, None, 1.0))
    assert cells["projector"] == "-"
    kept = Round(2, (GOOD,), (1.0,), GOOD, 0, ProjectorStep(1.0, 2.0, False, "x"), 1.0)
    assert display.round_cells(kept)["projector"] == "kept"
