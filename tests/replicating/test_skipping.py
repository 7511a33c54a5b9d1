"""The skipping paper's Figures 2 to 5, of a tiny model: each point is the model that runs so."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import tiny

from slimsearch.api import assembly, inputs
from slimsearch.errors import RunError, SettingsError
from slimsearch.replicating import skipping
from slimsearch.routes.kinds import PICTURE, PROMPT, TEXT
from slimsearch.routes.route import Route, Step, plain
from slimsearch.searching.watch import Watch

T, ALL = frozenset({TEXT}), frozenset({PICTURE, PROMPT, TEXT})


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, pairs_file, text_file):
    folder = tiny.llava(tmp_path_factory.mktemp("skipping") / "model", blocks=5)
    return tiny.settings(folder, pairs_file, text_file)


@pytest.fixture(scope="module")
def made(chosen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures") / "out"
    return folder, skipping.draw(chosen, [1, 2], [0, 3], folder, Watch())


def test_every_line_of_the_figures_is_there(made):
    _, found = made
    lines = {(point.figure, point.curve) for point in found.points}
    assert {curve for figure, curve in lines if figure == 2} == {"block", "FFN", "attention"}
    assert len({curve for figure, curve in lines if figure == 3}) == 6
    assert {curve for figure, curve in lines if figure == 4} == {
        "from 0 (T)", "from 0 (P+T)", "from 3 (T)", "from 3 (P+T)",
    }  # fmt: skip
    assert {curve for figure, curve in lines if figure == 5} == {"FFN and attention", "two blocks"}
    shares = {(p.curve, p.interval): p.blocks for p in found.points if p.figure in (2, 4)}
    assert shares["block", 1] == pytest.approx(4 / 5)  # from block 1 on
    assert shares["block", 2] == pytest.approx(2 / 5)
    assert shares["from 3 (T)", 2] == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("figure", "curve", "steps"),
    [
        (2, "FFN", {1: Step(skip_ffn=T), 3: Step(skip_ffn=T)}),
        (3, "attention (P+T)", {n: Step(skip_attention=ALL) for n in (1, 3)}),
        (4, "from 3 (P+T)", {3: Step(skip_block=ALL)}),
        (5, "FFN and attention", {n: Step(parallel_ffn=True) for n in (1, 3)}),
        (5, "two blocks", {n: Step(parallel_next="mean") for n in (1, 3)}),
    ],
)
def test_a_point_is_the_model_on_that_route(chosen, made, figure, curve, steps):
    _, found = made
    (point,) = (p for p in found.points if (p.figure, p.curve, p.interval) == (figure, curve, 2))
    bench = assembly.load(inputs.gather(replace(chosen, policy="uniform")), Watch())
    vlm = bench.loop.evaluator.vlm
    vlm.reroute("test", Route(tuple(steps.get(n, Step()) for n in range(5))))
    figures = {}
    for task in bench.tasks.values():
        figures |= task.measure(vlm, bench.held_out)
    vlm.reroute("test", plain(5))
    assert point.figures == pytest.approx(figures)


def test_it_is_drawn_and_measured_once(chosen, made, monkeypatch):
    folder, found = made
    for figure in range(2, 6):
        ElementTree.fromstring((folder / f"figure-{figure}.svg").read_text())
        assert (folder / f"figure-{figure}.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((folder / skipping.FILE).read_text())
    assert len(told["points"]) == len(found.points)
    assert told["dense"] == found.dense
    monkeypatch.setattr("slimsearch.tasks.pairs.Pairs.measure", None)
    assert skipping.draw(chosen, [1, 2], [0, 3], folder, Watch()) == found
    with pytest.raises(RunError, match="another model, data or settings"):
        skipping.draw(replace(chosen, seed=5), [2], [], folder, Watch())


def test_blocks_that_are_not_there_and_models_that_see_nothing_are_refused(
    chosen, llama, text_file, tmp_path
):
    with pytest.raises(SettingsError, match="--starts names block 5"):
        skipping.draw(chosen, [2], [5], tmp_path, Watch())
    blind = replace(chosen, model=str(llama), calibration=str(text_file), pairs="none")
    with pytest.raises(SettingsError, match="Give --pairs"):
        skipping.draw(blind, [2], [], tmp_path, Watch())
