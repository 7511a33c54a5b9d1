"""What an outlook foretells, against losses on weights that are moved by hand."""

from dataclasses import replace

import pytest
import torch

from slimsearch.api import assembly, inputs
from slimsearch.model.batch import IGNORED
from slimsearch.record.candidate import Outlook
from slimsearch.searching import outlook, sensitivity
from slimsearch.searching.allocation import HOPELESS
from slimsearch.searching.watch import Watch
from slimsearch.surgery import level_store

STEP = 0.02  # of the way
WEIGHTS = {"text_loss": 1.0, "answer_loss": 3.0}


@pytest.fixture
def loop(small):
    chosen = replace(small, policy="per_matrix", levels="0,0.3,0.6", racing="")
    found = assembly.load(inputs.gather(chosen), Watch()).loop
    evaluator = found.evaluator
    levels = found.space.levels(evaluator.families["layer_sparsity"], evaluator.vlm.body)
    level_store.fill(
        evaluator.store, evaluator.vlm, found.hessian_batches, levels, found.solver, found.tokens,
        lambda: None,
    )  # fmt: skip
    evaluator.weights = WEIGHTS
    return found


def costs_of(loop):
    return tuple(tuple(3.0 * level for level in gene.choices) for gene in loop.space.genes)


def total(loop) -> float:
    some = loop.evaluator.calibrated.part(outlook.SHARE)
    vlm = loop.evaluator.vlm
    return vlm.mean_loss(some.texts) + 3.0 * vlm.mean_loss(some.pairs)


def test_along_is_how_the_loss_changes_as_weights_begin_to_move(loop):
    space, evaluator = loop.space, loop.evaluator
    genes = tuple(n % 3 for n in range(len(space.genes)))
    found = outlook.look(space, evaluator, genes, costs_of(loop))
    for where in range(0, len(genes), 3):
        (matrix,) = space.parts(evaluator.vlm.body)[where]
        weight = evaluator.vlm.linear(matrix).weight.data
        for choice, level in enumerate(space.genes[where].choices):
            here, there = weight.clone(), evaluator.store.weights(matrix, level)
            sides = []
            for way in (STEP, -STEP):
                weight.copy_(here + way * (there - here))
                sides.append(total(loop))
            weight.copy_(here)
            expected = (sides[0] - sides[1]) / (2 * STEP)
            assert found.along[where][choice] == pytest.approx(expected, rel=0.03, abs=2e-4)


def test_away_is_what_costs_differ_by(loop):
    genes = (1,) * len(loop.space.genes)
    found = outlook.look(loop.space, loop.evaluator, genes, costs_of(loop))
    assert found.genes == genes
    for some in found.away:
        assert some == pytest.approx((0.9, 0.0, 0.9))


def test_what_could_not_be_solved_is_never_worth_it(loop):
    loop.evaluator.store.refuse("blocks.1.up", "no damping helped")
    where = loop.space.parts(loop.evaluator.vlm.body).index(("blocks.1.up",))
    genes = tuple(0 if n == where else 1 for n in range(len(loop.space.genes)))
    found = outlook.look(loop.space, loop.evaluator, genes, costs_of(loop))
    assert found.along[where] == (0.0, HOPELESS, HOPELESS)


def test_from_what_could_not_be_solved_there_is_no_outlook(loop):
    loop.evaluator.store.refuse("blocks.1.up", "no damping helped")
    genes = (1,) * len(loop.space.genes)
    assert outlook.look(loop.space, loop.evaluator, genes, costs_of(loop)) == Outlook(genes)


@pytest.mark.parametrize("happens", ["memory", "nan"])
def test_without_sound_gradients_there_is_no_outlook(loop, monkeypatch, happens):
    def failing(vlm, batches):
        if happens == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {matrix.name: torch.full((2, 2), torch.nan) for matrix in vlm.matrices}

    monkeypatch.setattr(sensitivity, "gradients", failing)
    genes = (1,) * len(loop.space.genes)
    assert outlook.look(loop.space, loop.evaluator, genes, costs_of(loop)) == Outlook(genes)


def test_another_error_is_no_lack_of_memory(loop, monkeypatch):
    def failing(vlm, batches):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(sensitivity, "gradients", failing)
    with pytest.raises(RuntimeError, match="shapes differ"):
        outlook.look(loop.space, loop.evaluator, (1,) * len(loop.space.genes), costs_of(loop))


def test_gradients_are_autograds(seen, batches):
    model, texts = seen[0], [batch for batch in batches if batch.source == batches[0].source]
    found = sensitivity.gradients(model, texts)
    names = ["blocks.0.q", "blocks.1.down", "blocks.0.gate"]
    weights = [model.linear(name).weight.requires_grad_() for name in names]
    with torch.enable_grad():
        count = sum(int((batch.targets != IGNORED).sum()) for batch in texts)
        loss = torch.stack([model.loss(batch) for batch in texts]).sum() / count
        expected = torch.autograd.grad(loss, weights)
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)
