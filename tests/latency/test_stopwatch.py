"""Times as the real engine gives them; where DeepSparse cannot run, skipped."""

import json
from dataclasses import replace

import pytest
import torch

from slimsearch.api import runs
from slimsearch.guest import host
from slimsearch.latency import stopwatch, table
from slimsearch.latency.work import Work
from slimsearch.model.batch import Calibrated
from slimsearch.native import library
from slimsearch.objectives.latency import Latency
from slimsearch.plugins import find

needs_deepsparse = pytest.mark.skipif(bool(host.missing()), reason=f"DeepSparse: {host.missing()}")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Two sparsities, a cache of its own."""
    monkeypatch.setattr(stopwatch, "GRID", (0.0, 0.8))
    monkeypatch.setenv(table.CACHE, str(tmp_path / "cache"))


@needs_deepsparse
def test_a_decoder_is_timed_once_and_split_by_shape(load, llama, monkeypatch):
    vlm, work = load(llama), Work("decode", 8, "deepsparse", "float32", cores=1)
    found = stopwatch.table_of(vlm, work)
    shapes = {stopwatch.shape_of(vlm.linear(m.name).weight) for m in vlm.matrices}
    for point, sparsity in zip(found.points, (0.0, 0.8), strict=True):
        assert point.sparsity == sparsity
        assert set(point.matrices) == shapes
        assert point.rest > 0
        assert all(time >= 0 for time in point.matrices.values())  # steps of a microsecond
    monkeypatch.setattr(stopwatch, "measure", None)  # not again
    assert stopwatch.table_of(vlm, work) == found


@pytest.mark.skipif(bool(library.absent()), reason=library.absent())
@pytest.mark.parametrize(("phase", "dtype"), [("prefill", "bfloat16"), ("decode", "int8")])
def test_our_engine_is_timed_too(load, llama, phase, dtype):
    vlm, work = load(llama), Work(phase, 8, "native", dtype, cores=1)
    found = stopwatch.table_of(vlm, work)
    shapes = {stopwatch.shape_of(vlm.linear(m.name).weight) for m in vlm.matrices}
    for point in found.points:
        assert set(point.matrices) == shapes
        assert min(point.matrices.values()) >= 0  # these are as quick as calling them
        assert point.rest >= 0
    assert found.predict(stopwatch.parts_of(vlm)) > 0


@pytest.mark.skipif(bool(library.absent()), reason=library.absent())
@pytest.mark.parametrize("engine", ["native", "native-int8"])
def test_the_term_foretells_in_our_engine(load, llama, engine):
    vlm = load(llama)
    term = Latency(latency_engine=engine, latency_phase="decode", latency_tokens=8)
    assert term.measure(vlm, Calibrated((), ())) > 0
    noted = term.noted(vlm)
    assert noted["key"]["work"]["engine"] == "native"
    assert noted["key"]["work"]["dtype"] == ("int8" if engine.endswith("int8") else "float32")


def test_parts_follow_the_zeros(load, llama):
    vlm = load(llama)
    vlm.linear("blocks.1.up").weight.data[: vlm.linear("blocks.1.up").weight.shape[0] // 2] = 0
    found = dict(zip((m.name for m in vlm.matrices), stopwatch.parts_of(vlm), strict=True))
    assert found["blocks.1.up"].sparsity == pytest.approx(0.5)
    assert found["blocks.0.up"].sparsity == 0
    assert found["blocks.1.up"].shape == "48 x 32"


def test_thinning_leaves_the_model_alone(load, llama):
    parts = stopwatch.anatomy.read(load(llama))
    before = parts.blocks[0].matrices["q"].weight.detach().clone()
    thin = stopwatch.thinned(parts, 0.7)
    share = float((thin.blocks[0].matrices["q"].weight == 0).float().mean())
    assert 0.6 < share < 0.8
    assert torch.equal(parts.blocks[0].matrices["q"].weight, before)


@needs_deepsparse
def test_a_run_keeps_its_times_and_a_resumed_one_uses_them(small_search, tmp_path, monkeypatch):
    """The numbers of the journal are scored with, whatever the machine would say today."""
    chosen = replace(small_search, objective="text_loss + 2*latency", latency_phase="decode",
                     latency_tokens=8, rounds=1, out=str(tmp_path / "run"))  # fmt: skip
    found = runs.search(chosen)
    assert found.terms["latency"] > 0
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    (kept,) = [r for line in lines if (r := json.loads(line[9:]))["kind"] == "noted"]
    term = Latency()
    term.recall(kept["facts"])
    assert [point.sparsity for point in term._table.points] == [0.0, 0.8]
    cut = next(n for n, line in enumerate(lines) if '"kind":"score"' in line)
    (tmp_path / "run" / "journal.jsonl").write_text("\n".join(lines[: cut + 1]) + "\n")
    monkeypatch.setattr(stopwatch, "table_of", None)  # measuring again would fail
    again = runs.resume(tmp_path / "run")
    assert again.terms == found.terms
    assert again.total == found.total


@pytest.fixture
def small_search(small, llama, text_file):
    import tiny

    return replace(tiny.settings(llama, "none", text_file), latency_engine="deepsparse")


def test_the_term_is_found():
    assert find("objectives", "latency") is Latency
