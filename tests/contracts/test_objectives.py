"""Every file in objectives/ against the contract of a term."""

from math import isfinite

import pytest
import torch

from slimsearch.api import assembly
from slimsearch.calibration import Pair, Turn
from slimsearch.contracts import Term
from slimsearch.demo import world
from slimsearch.latency import stopwatch
from slimsearch.latency.table import Point
from slimsearch.latency.work import matrices_of, shape_of
from slimsearch.model import checkpoint, conversation, loading
from slimsearch.model.batch import Calibrated
from slimsearch.plugins import about, find, names
from slimsearch.settings import Settings
from slimsearch.teaching.said import TOP

TERMS = names("objectives")
LOSSES = sorted(name for name in TERMS if name.endswith(("_loss", "_kl")))


def test_all_are_found():
    assert set(TERMS) >= {"text_loss", "answer_loss", "weight_norm"}
    assert all(about("objectives", name) for name in TERMS)
    assert all(issubclass(find("objectives", name), Term) for name in TERMS)


def make(name: str) -> Term:
    return assembly.make("objectives", name, Settings())


@pytest.fixture(autouse=True)
def made_up_times(monkeypatch, tmp_path):
    """tests/latency/ times the real engine; here a matrix takes as long as it has weights left."""

    def measure(parts, work, interpreter):
        matrices = matrices_of(parts.blocks[0])
        shapes = {shape_of(matrix.weight): matrix.weight.numel() for matrix in matrices}
        return tuple(
            Point(s, {shape: size * (1 - s) for shape, size in shapes.items()}, 7.0)
            for s in (0.0, 1.0)
        )

    monkeypatch.setattr(stopwatch, "measure", measure)
    monkeypatch.setenv("SLIMSEARCH_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def demo():
    """The demo model, which understands its world, and a little of that world."""
    model = loading.load(checkpoint.find("demo"), "cpu", "float32")
    speech = conversation.load(model.checkpoint)
    ids = torch.tensor(speech.tokens(world.text("calibration", 400, 0))[:256]).view(8, 32)
    pairs = [
        Pair(str(n), shown.image, tuple(Turn(q.text, q.answer) for q in shown.questions))
        for n, shown in enumerate(world.pictures("calibration", 4, 3, 0))
    ]
    return model, Calibrated(
        tuple(conversation.text_batches(ids, model.device, 4096)),
        tuple(conversation.pair_batches(model, speech, pairs, 1024)),
    )


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_finite_and_repeats_itself(demo, name):
    term = make(name)
    term.prepare(*demo)
    first = term.measure(*demo)
    assert isinstance(first, float)
    assert isfinite(first)
    assert term.measure(*demo) == first


@pytest.mark.parametrize("name", TERMS)
def test_a_term_changes_nothing(demo, name):
    before = {key: weight.clone() for key, weight in demo[0].model.state_dict().items()}
    term = make(name)
    term.prepare(*demo)
    term.measure(*demo)
    after = demo[0].model.state_dict()
    assert all(torch.equal(weight, after[key]) for key, weight in before.items())


@pytest.mark.parametrize("name", LOSSES)
def test_the_dense_model_scores_lower_than_a_destroyed_one(demo, name):
    model, calibrated = demo
    term = make(name)
    term.prepare(model, calibrated)
    whole = term.measure(model, calibrated)
    before = {m.name: model.linear(m.name).weight.data.clone() for m in model.matrices}
    for n, matrix in enumerate(model.matrices):
        torch.manual_seed(n)
        weight = model.linear(matrix.name).weight.data
        weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view(weight.shape))
    destroyed = term.measure(model, calibrated)
    for name_, weight in before.items():
        model.linear(name_).weight.data.copy_(weight)
    assert whole + 0.5 < destroyed


@pytest.mark.parametrize("name", LOSSES)
def test_needs_pairs_is_the_truth(demo, name):
    """A term that reads no pairs must not move when the projector does; one that does, must."""
    model, calibrated = demo
    term = make(name)
    term.prepare(model, calibrated)
    before = term.measure(model, calibrated)
    state = model.weights(model.projector_parameters)
    model.set_weights({key: weight * 0.5 for key, weight in state.items()})
    after = term.measure(model, calibrated)
    model.set_weights(state)
    assert (before != after) == term.needs_pairs
    assert term.measure(model, calibrated) == before


def test_weight_norm_is_the_geometric_mean_of_kept_norms(demo):
    model, calibrated = demo
    term = make("weight_norm")
    term.prepare(model, calibrated)
    assert term.measure(model, calibrated) == pytest.approx(1.0)
    before = {m.name: model.linear(m.name).weight.data.clone() for m in model.matrices}
    shares = []
    for n, matrix in enumerate(model.matrices):
        weight = model.linear(matrix.name).weight.data
        weight[: 1 + n % 7] = 0
        shares.append(weight.double().norm() / before[matrix.name].double().norm())
    measured = term.measure(model, calibrated)
    for name, weight in before.items():
        model.linear(name).weight.data.copy_(weight)
    exact = torch.stack(shares).log().mean().exp().item()
    assert measured == pytest.approx(exact, rel=1e-5)
    assert measured < 1


@pytest.mark.parametrize(("name", "batches"), [("text_kl", "texts"), ("answer_kl", "pairs")])
def test_kl_is_the_divergence_at_every_target_by_definition(demo, name, batches):
    """Against whole distributions in float64, on a share, in batches halved since it was heard."""
    model, calibrated = demo
    part = calibrated.part(0.5)
    term = make(name)
    term.prepare(model, calibrated)
    term.prepare(model, part)
    assert term.measure(model, part) == pytest.approx(0, abs=1e-6)
    dense = [distributions(model, batch) for batch in getattr(part, batches)]
    before = {m.name: model.linear(m.name).weight.data.clone() for m in model.matrices}
    for matrix in model.matrices:
        weight = model.linear(matrix.name).weight.data
        weight.view(-1)[::3] = 0
    measured = [term.measure(model, part), term.measure(model, part.split(1))]
    exact = []
    for batch, whole in zip(getattr(part, batches), dense, strict=True):
        for p, q in zip(whole, distributions(model, batch), strict=True):
            top = p.topk(TOP).indices
            p, q = (torch.cat([side[top], 1 - side[top].sum(0, keepdim=True)]) for side in (p, q))
            exact.append(float((p * (p / q).log()).sum()))
    for name_, weight in before.items():
        model.linear(name_).weight.data.copy_(weight)
    assert len(exact) > 10
    assert measured == pytest.approx([sum(exact) / len(exact)] * 2, rel=1e-3)


def distributions(model, batch) -> torch.Tensor:
    """What is expected at every target, [targets, vocabulary]."""
    with torch.no_grad():
        hidden, _, _ = model.predicting(batch, model.given(batch))
        return model.logits(hidden).double().softmax(-1)


def test_bytes_are_a_bit_a_weight_and_the_values_that_stayed(demo):
    model, calibrated = demo
    term = make("bytes")
    dense = term.measure(model, calibrated)
    stored = sum(p.numel() for p in model.model.parameters()) * 2  # bf16
    assert dense == stored
    layer, size = model.linear("blocks.2.up"), model.linear("blocks.2.up").weight.numel()
    before = layer.weight.data.clone()
    layer.weight.data.view(-1)[::2] = 0
    halved = term.measure(model, calibrated)
    layer.weight.data.copy_(before)
    layer.weight.data.view(-1)[::32] = 0  # a bit a weight costs more than so few zeros save
    hardly = term.measure(model, calibrated)
    layer.weight.data.copy_(before)
    assert halved == dense - 2 * size * (1 - 9 / 16)
    assert hardly == dense


def test_latency_is_the_sum_over_the_matrices_as_they_stand(demo):
    model, calibrated = demo
    term = make("latency")
    whole = sum(matrix.size for matrix in model.matrices)
    assert term.measure(model, calibrated) == pytest.approx(whole + 7)
    layer = model.linear("blocks.2.up")
    before = layer.weight.data.clone()
    layer.weight.data.view(-1)[::2] = 0
    faster = term.measure(model, calibrated)
    layer.weight.data.copy_(before)
    assert faster == pytest.approx(whole + 7 - before.numel() / 2)
