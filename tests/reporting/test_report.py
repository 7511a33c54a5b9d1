"""A report says what the run holds, to the figure, and what it does not hold."""

import json
import re
import shlex
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from PIL import Image
from reader import Reader
from safetensors.torch import load_file

from slimsearch import cli, reporting, settings
from slimsearch.api import runs
from slimsearch.errors import RunError, SettingsError
from slimsearch.record import history
from slimsearch.record.candidate import Row, Score
from slimsearch.record.history import TIMES
from slimsearch.reporting import beside, findings, search, searching, story, words
from slimsearch.reporting.markup import Html, rendered, tag

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0-format-2"


@pytest.fixture
def read(page: Path) -> Reader:
    return Reader(page.read_text("utf-8"))


@pytest.fixture
def told(run: Path) -> story.Story:
    return story.read(run)


def plain(piece) -> str:
    """The words of a piece of a page."""
    return " ".join(Reader(rendered(piece)).words.split())


def test_it_is_one_file_that_needs_no_other_and_no_script(page, read):
    assert not {"script", "link", "iframe", "object"} & read.tags
    assert all(link.startswith(("#", "data:image/")) for link in read.links)
    text = page.read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)


def test_every_figure_stands_beside_it_as_svg_and_png(page, read):
    files = {file.name for file in (page.parent / "figures").iterdir()}
    drawn = {name.removesuffix(".svg") for name in files if name.endswith(".svg")}
    assert {"rounds", "lost", "weights", "sensitivity", "space", "exact", "time", "speed"} <= drawn
    assert files == {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    assert {f"figure-{name}" for name in drawn} <= set(read.ids)
    for name in drawn:
        svg = ElementTree.parse(page.parent / "figures" / f"{name}.svg").getroot()
        with Image.open(page.parent / "figures" / f"{name}.png") as png:
            wide, high = (float(svg.get(side)) for side in ("width", "height"))
            assert png.width / png.height == pytest.approx(wide / high, rel=0.01)
            assert len(png.getcolors(1 << 20)) > 20


def test_every_section_of_the_story_is_there(read):
    for heading in (
        "Dense, uniform and champion", "What was found", "Benchmarks", "Speed and size",
        "How the search went",
        "Where the weights went", "Term by term", "Stitched against exact",
        "Where the search looked", "What it answers", "Failed candidates", "What it cost",
        "How to make it again", "The words",
    ):  # fmt: skip
        assert heading in read.words


def test_the_table_is_the_runs(read, told):
    end = told.history.end
    assert [row.name for row in told.rows] == [row["name"] for row in end["table"]]
    for row in end["table"]:
        assert f"{row['figures']['perplexity']:.3f}" in read.words
        assert f"{row['figures']['accuracy']:.1%}" in read.words


def test_what_is_won_back_is_the_share_of_what_uniform_pruning_loses(told):
    from slimsearch.reporting.sections import _won_back

    rows = {"dense": 10.0, "uniform sparsegpt": 14.0, "searched": 11.0}
    for best, said in ((11.0, "75% in text perplexity"), (16.0, "where it loses 50% more"),
                       (9.5, "all and more in text perplexity")):  # fmt: skip
        rows["searched"] = best
        told.__dict__["rows"] = [
            Row(name, 0.5, {"perplexity": value}) for name, value in rows.items()
        ]
        assert said in _won_back(told)
    del told.__dict__["rows"]


def test_every_candidate_of_every_round_is_a_dot(told):
    scene = searching.convergence(told)
    named = [mark.title.split(":")[0] for mark in scene.marks if getattr(mark, "title", "")]
    wanted = [s.candidate for done in told.history.rounds.values() for s in done.scores]
    assert sorted(named) == sorted(wanted)


def test_the_heat_map_is_of_the_zeros_in_the_weights(told):
    weights = load_file(told.folder / "model" / "model.safetensors")
    zeros = {
        name: float((tensor == 0).float().mean())
        for name, tensor in weights.items()
        if "_proj" in name and "language_model" in name
    }
    cells = [mark.title for mark in findings.weights(told).marks if getattr(mark, "title", "")]
    paths = {"q": "self_attn.q", "gate": "mlp.gate", "down": "mlp.down"}
    for block in ("0", "1"):
        for role, path in paths.items():
            (key,) = [k for k in zeros if f"layers.{block}.{path}_proj" in k]
            assert f"{block} {role}: {100 * zeros[key]:.0f}" in cells


def test_sensitivities_are_shares_of_the_predicted_costs(told):
    costs = np.array([
        cost[int(np.argmin(np.abs(np.array(gene[2]) - 0.5)))]
        for gene, cost in zip(told.genes, told.history.hints.costs, strict=True)
    ])  # fmt: skip
    scene = findings.sensitivities(told)
    cells = {
        mark.title.split(":")[0]: float(mark.title.split(":")[1])
        for mark in scene.marks
        if getattr(mark, "title", "")
    }
    assert cells["0 q"] == pytest.approx(100 * costs[0] / costs.sum(), rel=0.05)
    assert cells["0 block"] + cells["1 block"] == pytest.approx(100, rel=0.03)


def test_distances_within_a_plane_are_kept_wherever_it_lies():
    draw = np.random.default_rng(0)
    flat = draw.normal(size=(9, 2)) * (3, 1)
    turned, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    found = searching.projected((flat @ turned[:2] + draw.normal(size=6)).tolist())
    assert found.kept == pytest.approx(1)

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    np.testing.assert_allclose(distances(found.points), distances(flat), atol=1e-9)


@pytest.mark.parametrize("points", [[[0.5]], [[0.5], [0.6]], [[0.5, 0.5]] * 3])
def test_few_points_or_equal_ones_have_a_map_too(points):
    assert searching.projected(points).points.shape == (len(points), 2)


def test_failed_candidates_are_named_with_their_reason(told):
    bad = Score("2-01", (0,), float("inf"), failure="no damping helped <blocks.0.q>")
    told.history.scores["2-01", 0, 1.0] = bad
    assert "2-01 no damping helped <blocks.0.q>" in plain(search.failures(told))


def test_why_a_search_gave_up_is_told(told):
    told.history.given_up.append(Score("2-01", (0,), float("inf"), failure="nothing <helped>"))
    said = plain(search.failures(told))
    assert "stopped because all of the 1 that it scored last failed" in said
    assert "2-01 nothing <helped>" in said


def test_sample_answers_stand_beside_their_pictures(read, told):
    cards = told.history.samples["samples"]
    said = " ".join(read.words.split())
    for sample in cards:
        for text in (sample["question"], sample["dense"], sample["pruned"]):
            shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
            assert " ".join(shown.split()) in said
    assert sum(link.startswith("data:image/") for link in read.links) >= len(cards)


def test_evaluations_are_shown_with_intervals_and_the_answers_that_differ(read):
    said = " ".join(read.words.split())
    assert "80.00 [70.00, 90.00]" in said
    assert "60.00 [50.00, 70.00]" in said
    assert (
        "champion against dense, the same 5 questions: -20.00 (-40.00 to -1.00), p = 0.03" in said
    )
    assert "3 of 5 answers differ" in said
    assert "Not every model was asked pope: slimsearch eval" in said
    assert "Is there a thing <0>?" in said
    assert "The picture gone.png cannot be read any more." in said


def test_all_three_stand_side_by_side(told):
    """Every figure of the run, of each task, of the bench; what is not there is said to be so."""
    said = plain(beside.beside(told))
    dense, uniform, best = told.dense, told.uniform, told.searched
    for key, (name, _) in words.FIGURES.items():
        three = [words.figure(key, row.figures[key]) for row in (dense, uniform, best)]
        assert re.search(rf"{name}, held-out data \(\w+ is better\) {' '.join(three)}", said)
    assert (
        "pope, accuracy (more is better) 80.00 [70.00, 90.00] not measured 60.00 [50.00, 70.00]"
        in said
    )
    assert (
        "prompt of 64 tokens (less is better) 32.0 (openvino bfloat16) not measured "
        "42.7 (deepsparse float32)" in said
    )
    kept = told.prunable * (1 - best.sparsity)
    bare = told.scope["parameters"] - told.prunable
    assert told.packed(best.sparsity) == pytest.approx(
        (bare + kept) * told.scope["bytes_each"] + told.prunable / 8
    )
    assert "--against dense,uniform asks all three" in said


def study_of(folder: Path, name: str, rows: dict[str, dict]) -> Path:
    folder.mkdir()
    facts = {"model": "demo", "ratio": 0.6, "rows": [
        {"name": row, "about": f"about {row}", "sparsity": 0.6, "figures": figures, "seconds": 90.0,
         "peak_bytes": 1 << 30} for row, figures in rows.items()
    ]}  # fmt: skip
    (folder / name).write_text(json.dumps(facts), "utf-8")
    return folder


def test_a_study_is_a_table_and_what_each_row_lost(run, tmp_path):
    compared = study_of(tmp_path / "demo-0.6", "compare.json", {
        "dense": {"perplexity": 2.0, "accuracy": 1.0}, "uniform-wanda": {"perplexity": 3.5},
        "searched": {"perplexity": 2.25, "accuracy": 0.9},
    })  # fmt: skip
    swept = study_of(tmp_path / "swept", "sweep.json", {
        "8x64": {"perplexity": 3.0}, "16x64": {"perplexity": 2.5}, "8x128": {"perplexity": 2.6},
    })  # fmt: skip
    (page, *figures) = reporting.report([compared], tmp_path / "one")
    read = Reader(page.read_text("utf-8"))
    said = " ".join(read.words.split())
    assert "uniform-wanda 60.0% 3.500 not measured 90.0 s 1 GiB" in said
    assert "uniform-wanda about uniform-wanda" in said
    assert "Text perplexity, above dense searched 0.25 uniform-wanda 1.5" in said
    assert {file.stem for file in figures} == {"perplexity", "accuracy"}
    (page, *_) = reporting.report([swept, run, compared], tmp_path / "all")
    read = Reader(page.read_text("utf-8"))
    assert "128 tokens each" in read.words
    assert {"swept-study", "first-run", "demo-0-6-study"} <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))
    with pytest.raises(SettingsError, match="is a study of several"):
        reporting.report([compared], tmp_path / "two", [run / "bench.json"])
    (compared / "compare.json").write_text('{"rows": [1]}', "utf-8")
    with pytest.raises(RunError, match=r"compare\.json cannot be read as a study"):
        reporting.report([compared], tmp_path / "two")


def test_speed_is_the_benchs(read):
    said = " ".join(read.words.split())
    assert "champion, deepsparse float32 64 42.7 150.0 1.50 / 1.40 0.75 / 0.70 12.5 300" in said
    assert "prefill: use openvino." in said
    assert "vllm is not here." in said


def test_the_command_that_makes_it_again_gives_the_same_settings(told):
    line = shlex.split(words.command(told.settings))
    assert line[:2] == ["slimsearch", "run"]
    command = typer.main.get_command(cli.app).commands["run"]
    given = command.make_context("run", line[2:]).params
    again = settings.change(
        settings.Settings(),
        {key: value for key, value in given.items() if value is not None},
        "here",
    )
    assert replace(again, out=told.settings.out) == told.settings


def test_the_cost_is_told(read, told):
    assert re.search(r"It ran on .+ and held [\d.]+ (M|G)iB at its highest", read.words)
    counted = told.scope["calibration"]
    tokens = counted["texts"]["tokens"] + counted["pairs"]["tokens"]
    assert f"{tokens:,} tokens; scoring read about" in read.words


def test_what_an_earlier_release_did_not_keep_is_said(tmp_path):
    reporting.report([GOLDEN / "finished"], tmp_path / "old")
    said = " ".join(Reader((tmp_path / "old" / reporting.PAGE).read_text("utf-8")).words.split())
    for sentence in (
        "an earlier release made it", "How many parameters the model has, this run did not keep",
        "Peak memory and the machine are not kept", "Sample answers were not taken",
        "this run did not predict", "Speed was not measured", "No evaluation task was run",
    ):  # fmt: skip
        assert sentence in said
    table = tomllib.loads((GOLDEN / "finished" / "best.toml").read_text())
    assert f"{table['found']['perplexity']:.3f}" in said


def test_an_unfinished_run_is_told_as_far_as_it_came(tmp_path):
    reporting.report([GOLDEN / "interrupted"], tmp_path / "half")
    said = Reader((tmp_path / "half" / reporting.PAGE).read_text("utf-8")).words
    assert "interrupted; 1 of 2 rounds closed" in said
    assert "There is no champion yet." in said


def test_a_run_that_has_scored_nothing_yet_has_a_report_without_figures(tmp_path):
    young = shutil.copytree(GOLDEN / "interrupted", tmp_path / "young")
    journal = young / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    (young / TIMES).unlink()
    assert reporting.report([young], tmp_path / "out") == [tmp_path / "out" / reporting.PAGE]


def test_several_runs_are_laid_side_by_side(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "<b>&first")
    same = shutil.copytree(run, tmp_path / "again" / "first")
    reporting.report([run, other, same, GOLDEN / "finished"], tmp_path / "many")
    text = (tmp_path / "many" / reporting.PAGE).read_text("utf-8")
    read = Reader(text)
    assert len(read.ids) == len(set(read.ids))
    assert "The runs side by side" in read.words
    assert "<b>&first" in read.words  # escaped in the text, whole for its reader
    assert "<b>" not in text.replace("<b>", "", text.count("<div><b>"))
    figures = {file.name for file in (tmp_path / "many" / "figures").iterdir()}
    assert {"runs.svg", "first-rounds.svg", "first_2-rounds.svg", "finished-rounds.svg"} <= figures


def test_a_front_is_drawn_term_against_term(small, tmp_path):
    chosen = replace(small, strategy="pareto", objective="text_loss + answer_loss", rounds=1,
                     out=str(tmp_path / "front"))  # fmt: skip
    runs.search(chosen)
    reporting.report([tmp_path / "front"], tmp_path / "report")
    found = story.read(tmp_path / "front")
    said = plain(search.front(found))
    assert all(row["candidate"] in said for row in found.front)
    assert (tmp_path / "report" / "figures" / "front-1.png").is_file()


def test_what_cannot_be_is_refused_and_nothing_is_written(run, tmp_path):
    with pytest.raises(RunError, match="is no run folder"):
        reporting.report([tmp_path], tmp_path / "out")
    with pytest.raises(RunError, match="exists already"):
        reporting.report([run], tmp_path)
    wrong = tmp_path / "bench.json"
    wrong.write_text("{}")
    with pytest.raises(RunError, match=r"bench\.json is no bench"):
        reporting.report([run], tmp_path / "out", [wrong])
    with pytest.raises(SettingsError, match="belongs to one run"):
        reporting.report([run, run], tmp_path / "out", [wrong])
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (damaged / "best.toml").write_text("name = 'x'")
    with pytest.raises(RunError, match=r"best\.toml"):
        reporting.report([damaged], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_text_is_escaped_and_markup_is_not():
    assert (
        tag("p", "<i>", Html("<b>x</b>"), class_='a"b')
        == '<p class="a&quot;b">&lt;i&gt;<b>x</b></p>'
    )


def test_machines_are_read_past_torn_lines(tmp_path):
    (tmp_path / history.TIMES).write_text(
        history.time_line("stage", "load", 1.0) + history.machine_line("one", 5) + '{"machine":"tw'
    )
    assert history.machines(tmp_path) == [("one", 5)]
    assert history.times(tmp_path)["stage"] == {"load": 1.0}
