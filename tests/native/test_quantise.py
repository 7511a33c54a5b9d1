"""int8 with error feedback: zeros kept, less lost than by rounding, the model left as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slimsearch import artefact
from slimsearch.api import exporting, runs
from slimsearch.api.exporting import Choices
from slimsearch.graphs.int8 import row_scale, to_steps
from slimsearch.native import library
from slimsearch.native.quantise import quantise, solve
from slimsearch.native.session import NativeSession
from slimsearch.settings import Settings
from slimsearch.surgery.hessian import Hessian


@pytest.fixture
def problem():
    draw = torch.Generator().manual_seed(0)
    mixed = torch.randn(300, 300, generator=draw)
    hessian = Hessian.zeros(300)
    hessian.add(torch.randn(900, 300, generator=draw) @ mixed / 17)
    weights = torch.randn(40, 300, generator=draw)
    weights[torch.rand(40, 300, generator=draw) < 0.5] = 0
    weights[3] = 0
    return weights, hessian


def slowly(weights: torch.Tensor, upper: torch.Tensor) -> np.ndarray:
    """The same by definition, a weight at a time, in float64."""
    found = np.zeros(weights.shape)
    scale = row_scale(weights).double().numpy()
    U = upper.double().numpy()
    for row, line in enumerate(weights.double().numpy()):
        moved, kept = line.copy(), line != 0
        for j in range(len(line)):
            if kept[j]:
                found[row, j] = np.clip(np.rint(moved[j] / scale[row]), -127, 127)
            error = (moved[j] - found[row, j] * scale[row]) / U[j, j]
            moved[j:] -= error * U[j, j:]
    return found


def test_it_is_the_definition(problem):
    weights, hessian = problem
    factor = hessian.factor(0.01)
    found = solve(weights, factor)
    wanted = slowly(weights, factor.upper)
    assert (found.steps.numpy() == wanted).mean() > 0.999  # ties of fp32
    assert (np.abs(found.steps.numpy() - wanted) <= 1).all()
    assert torch.equal(found.steps[weights == 0], torch.zeros_like(found.steps[weights == 0]))


def test_less_is_lost_than_by_rounding(problem):
    weights, hessian = problem
    found = solve(weights, hessian.factor(0.01))
    scale = row_scale(weights)[:, None]
    ours = hessian.half_trace(found.steps * found.scale[:, None] - weights)
    rounded = hessian.half_trace(to_steps(weights) * scale - weights)
    assert ours < 0.8 * rounded


def test_the_model_stays_as_it_was(seen, batches):
    model, _ = seen
    before = {m.name: model.linear(m.name).weight.clone() for m in model.matrices}
    found = quantise(model, batches, "both", 0.01)
    assert found.keys() == before.keys()
    for name, weight in before.items():
        assert torch.equal(model.linear(name).weight, weight)
        error = (found[name].steps * found[name].scale[:, None] - weight).abs()
        assert float(error.max()) < 0.2 * float(weight.abs().max())


@pytest.mark.skipif(library.load() is None, reason="no C compiler here")
def test_an_export_calibrates_where_it_knows_on_what(llava, small, tmp_path, monkeypatch):
    record = exporting.export(
        str(llava), ["native"], tmp_path / "out", Choices(int8=True), calibrated_by=small
    )
    assert "error feedback" in record["exports"]["native"]["about"]
    plain = exporting.export(str(llava), ["native"], tmp_path / "plain", Choices(int8=True))
    assert "rounded to the nearest" in plain["exports"]["native"]["about"]
    ids = np.arange(5, 25)[None]
    logits = []
    for place in ("out", "plain"):
        session = NativeSession(artefact.find(tmp_path / place).native())
        logits.append(session.step(session.embed(ids), np.ones_like(ids), np.arange(20)[None]))
        session.close()
    assert not np.array_equal(*logits)
    assert np.abs(logits[0] - logits[1]).max() < 0.2 * np.abs(logits[0]).max()


def test_what_was_made_of_the_demo_model_is_calibrated_as_that_is(tmp_path):
    """A run's champion and a model pruned on the way out stand in other folders than the demo."""
    quick = Settings(policy="uniform", segments=4, pair_count=4, rounds=1, final_steps=0,
                     projector_steps=0, finalists=0, skip_baselines=True)  # fmt: skip
    run = str(runs.search(replace(quick, out=str(tmp_path / "run"))).folder)
    for source, pruned_by in ((run, None), ("demo", quick)):
        folder = tmp_path / f"{Path(source).name}-int8"
        record = exporting.export(source, ["native"], folder, Choices(int8=True), pruned_by)
        assert "error feedback" in record["exports"]["native"]["about"]
