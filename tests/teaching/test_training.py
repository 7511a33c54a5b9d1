"""The projector step: it learns, it knows when it did not, and it touches nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from slimsearch.calibration import Pair, Turn
from slimsearch.model.batch import IGNORED
from slimsearch.model.conversation import pair_batches, text_batches
from slimsearch.teaching import lessons, training
from slimsearch.teaching.training import Course, Trainer, _schedule, _systematic

TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "blue and more"))


@pytest.fixture
def pairs(seen):
    model, speech = seen
    some = [Pair(str(n), tiny.picture(n), TURNS) for n in range(10)]
    return pair_batches(model, speech, some, 110)


def trainer_of(model, pairs, rate: float) -> Trainer:
    rates = dict.fromkeys(model.projector_parameters, rate)
    return Trainer(model, rates, [lessons.subject(pairs)])


def batches(some) -> list:
    return [lesson.batch for lesson in some]


def step(trainer, steps: int = 12, seed: int = 0, candidates=None, weights=None):
    return trainer.step(
        Course(
            candidates or [lambda: None], weights or [1.0], lambda: None, steps,
            np.random.default_rng(seed),
        )
    )  # fmt: skip


def test_a_step_lowers_the_loss_on_pairs_it_never_trained_on(seen, pairs):
    model = seen[0]
    trainer = trainer_of(model, pairs, 3e-3)
    (subject,) = trainer._subjects
    held, trained = batches(subject.held), batches(subject.training)
    rows = [[str(row) for batch in some for row in batch.looks] for some in (held, trained)]
    assert sum(map(len, rows)) == sum(len(batch.ids) for batch in pairs)
    assert not set(rows[0]) & set(rows[1])
    before = model.mean_loss(held)
    done = step(trainer)
    assert done.kept
    assert done.before == before
    assert done.after < done.before
    assert model.mean_loss(held) == done.after


def test_only_the_projector_changes_and_no_weight_is_left_with_a_gradient(seen, pairs):
    model = seen[0]
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    assert step(trainer_of(model, pairs, 3e-3)).kept
    changed = {k for k, w in model.model.state_dict().items() if not torch.equal(w, before[k])}
    assert changed == set(model.projector_parameters.values())
    assert all(weight.grad is None for weight in model.model.parameters())
    assert not any(weight.requires_grad for weight in model.model.parameters())


def test_a_step_that_does_not_help_is_taken_back(seen, pairs):
    model = seen[0]
    original = model.weights()
    trainer = trainer_of(model, pairs, 3e-3)
    step(trainer, 2)  # so that there are moments to go back to
    (subject,) = trainer._subjects
    held = batches(subject.held)
    start, first = trainer.state(), [chances(model, batch) for batch in held]
    step(trainer, 30)
    # Held-out answers become what the same step makes less likely.
    worse = [(chances(model, b) - f).argmin(-1) for b, f in zip(held, first, strict=True)]
    turned = [
        lessons.Lesson(replace(b, targets=torch.where(b.targets != IGNORED, w, IGNORED)), None)
        for b, w in zip(held, worse, strict=True)
    ]
    trainer._subjects = [replace(subject, held=turned)]
    trainer.load(start)
    assert not torch.equal(original["linear_1.weight"], start["weight.linear_1.weight"])
    before, state = model.weights(), trainer.state()
    done = step(trainer, 30)
    assert not done.kept
    assert done.after >= done.before
    assert done.note
    after = model.weights()
    assert all(torch.equal(weight, before[key]) for key, weight in after.items())
    again = trainer.state()
    assert set(again) == set(state)
    assert all(torch.equal(weight, state[key]) for key, weight in again.items())


def chances(model, batch) -> torch.Tensor:
    """Log-probabilities of every token, [rows, length, vocabulary]."""
    with torch.no_grad():
        hidden = model.decoder(**model.given(batch)).last_hidden_state
        return model.logits(hidden).log_softmax(-1)


def test_a_huge_learning_rate_never_makes_it_worse(seen, pairs):
    model = seen[0]
    trainer = trainer_of(model, pairs, 1.0)
    held = batches(trainer._subjects[0].held)
    for seed in range(4):
        before = model.mean_loss(held)
        done = step(trainer, 10, seed)
        assert model.mean_loss(held) == (done.after if done.kept else before)
        assert model.mean_loss(held) <= before


def test_a_gradient_that_is_not_finite_is_taken_back(seen, pairs):
    model = seen[0]
    trainer = trainer_of(model, pairs, 3e-3)
    before = model.weights()
    weight = model.linear("blocks.1.up").weight.data
    kept = weight.clone()
    done = step(trainer, candidates=[lambda: weight.fill_(float("nan"))])
    weight.copy_(kept)
    assert not done.kept
    assert "not finite" in done.note
    assert all(torch.equal(w, before[key]) for key, w in model.weights().items())
    assert step(trainer).kept


def test_a_state_comes_back_bit_by_bit(seen, pairs):
    """Two ways to the same place: without a break, and through a file's worth of tensors."""
    model = seen[0]
    original = model.weights()
    unbroken = trainer_of(model, pairs, 3e-3)
    step(unbroken, seed=1)
    halfway = unbroken.state()
    step(unbroken, seed=2)
    wanted = unbroken.state()
    model.set_weights(original)
    resumed = trainer_of(model, pairs, 3e-3)
    resumed.load(halfway)
    assert all(torch.equal(w, halfway[key]) for key, w in resumed.state().items())
    step(resumed, seed=2)
    found = resumed.state()
    assert set(found) == set(wanted)
    assert all(torch.equal(weight, wanted[key]) for key, weight in found.items())
    assert any(key.startswith("exp_avg_sq.") for key in found)


def test_a_state_is_a_copy(seen, pairs):
    trainer = trainer_of(seen[0], pairs, 3e-3)
    state = trainer.state()
    kept = {key: weight.clone() for key, weight in state.items()}
    step(trainer)
    assert all(torch.equal(weight, kept[key]) for key, weight in state.items())


def test_candidates_are_put_on_in_proportion_to_their_weights(seen, pairs):
    trainer, put, trained = trainer_of(seen[0], pairs, 1e-3), [], []
    descend = trainer._descend
    trainer._descend = lambda *given: trained.append(put[-1]) or descend(*given)
    candidates = [lambda n=n: put.append(n) for n in range(3)]
    step(trainer, 20, candidates=candidates, weights=[0.5, 0.0, 0.5])
    assert [trained.count(n) for n in range(3)] == [10, 0, 10]
    assert sorted(put) == [0, 2]  # once each: putting one on may mean to prune it


def test_every_batch_is_trained_on_once_before_any_comes_again(seen, pairs):
    trainer, met = trainer_of(seen[0], pairs, 1e-3), []
    descend = trainer._descend
    trainer._descend = lambda taken, share: met.extend(map(id, taken)) or descend(taken, share)
    count = len(trainer._subjects[0].training)
    step(trainer, 2 * count)
    assert sorted(met[:count]) == sorted(met[count:])
    assert len(set(met)) == count
    assert met[:count] != met[count:]


def test_the_rate_warms_up_and_falls_along_a_cosine():
    shares = [_schedule(done, 100) for done in range(1, 101)]
    assert shares[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    wanted = [0.5 + 0.5 * np.cos(np.pi * n / 91) for n in range(1, 91)]
    assert shares[10:] == pytest.approx(wanted)
    assert 0 < shares[-1] < 1e-3
    assert _schedule(1, 1) == 1


class Losses:
    """In place of what the held-back pairs lose: told numbers, and the weights they were for."""

    def __init__(self, model, numbers):
        self.numbers, self.weights, self._model = list(numbers), [], model

    def __call__(self, _) -> float:
        self.weights.append(self._model.weights())
        return self.numbers[len(self.weights) - 1]


@pytest.mark.parametrize(
    ("losses", "looks", "kept"),
    [
        ([3.0, 2.0, 1.0, 0.9, 0.8], 4, 4),  # better all the way
        ([3.0, 2.0, 2.5, 1.0, 1.5], 4, 3),  # the best of all looks
        ([3.0, 2.0, 2.5, 2.0, 1.0], 4, 4),  # it goes on to the end
        ([3.0, 3.0, 3.5, 3.0, 4.0], 4, None),  # no better than before is not better
    ],
)
def test_it_looks_as_it_goes_and_keeps_the_best(seen, pairs, monkeypatch, losses, looks, kept):
    model = seen[0]
    trainer = trainer_of(model, pairs, 1e-3)
    seer = Losses(model, losses)
    monkeypatch.setattr(model, "mean_loss", seer)
    done = step(trainer, 3 * training.LOOK + 2)
    assert len(seer.weights) == 1 + looks
    assert done.kept == (kept is not None)
    now, wanted = model.weights(), seer.weights[kept or 0]
    assert all(torch.equal(now[key], weight) for key, weight in wanted.items())
    if done.kept:
        assert (done.before, done.after) == (3.0, losses[kept])


def test_the_first_gradient_step_is_adamw_on_the_answers_mean_loss(seen, pairs):
    """AdamW's first step moves each weight by the rate against its gradient's sign."""
    model, rate = seen[0], 1e-3
    trainer = trainer_of(model, pairs, rate)
    before = {k: w.requires_grad_() for k, w in model.weights(model.projector_parameters).items()}
    lesson = trainer._subjects[0].training[0]
    batch = lesson.batch
    embeds = model.given(batch, before)["inputs_embeds"]
    labels = torch.full_like(batch.ids, -100)
    labels[:, 1:] = batch.targets[:, :-1]
    logits = model.model(inputs_embeds=embeds, attention_mask=torch.ones_like(batch.ids)).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    loss.backward()
    assert trainer._descend([lesson], 1.0)
    for key, weight in trainer.state().items():
        if key.startswith("weight."):
            old = before[key.removeprefix("weight.")]
            clear = old.grad.abs() > 1e-5
            assert torch.allclose((old - weight)[clear], rate * old.grad.sign()[clear], rtol=2e-2)


def test_without_pairs_to_judge_by_no_step_is_possible(pairs):
    assert not lessons.subject([]).possible
    rows = [row for batch in pairs for row in batch.split(1)]
    assert not lessons.subject(rows[:1]).possible
    assert lessons.subject(rows[:2]).possible  # one to train on, one to judge by


@pytest.mark.parametrize("count", [1, 5, 8, 100])
def test_systematic_draws_are_as_even_as_they_can_be(count):
    weights = [0.1, 0.4, 0.0, 0.5]
    for seed in range(20):
        drawn = _systematic(weights, count, np.random.default_rng(seed))
        assert len(drawn) == count
        for index, weight in enumerate(weights):
            assert abs((drawn == index).sum() - weight * count) <= 1


def test_memory_that_runs_out_takes_the_step_back(seen, pairs, monkeypatch):
    model = seen[0]
    trainer = trainer_of(model, pairs, 3e-3)
    step(trainer, 2)
    before, calls = trainer.state(), []
    loss = model.loss

    def full(*given):
        calls.append(1)
        if len(calls) > len(trainer._subjects[0].held) + 3:
            raise torch.OutOfMemoryError("no room")
        return loss(*given)

    monkeypatch.setattr(model, "loss", full)
    done = step(trainer)
    assert (done.kept, done.note) == (False, "out of memory")
    after = trainer.state()
    assert set(after) == set(before)
    assert all(torch.equal(weight, before[key]) for key, weight in after.items())
    monkeypatch.setattr(model, "loss", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step(trainer)


def test_gains_are_trained_on_texts_and_pairs_and_nothing_else_changes(seen, pairs):
    model, speech = seen
    rows = torch.tensor(speech.tokens(tiny.prose(400)))[:320].view(-1, 16)
    subjects = [lessons.subject(pairs), lessons.subject(text_batches(rows, model.device, 64))]
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    worse = [subject.judged(model) for subject in subjects]
    assert step(Trainer(model, dict.fromkeys(model.gain_parameters, 1e-2), subjects), 40).kept
    assert sum(subject.judged(model) for subject in subjects) < sum(worse)
    changed = {k for k, w in model.model.state_dict().items() if not torch.equal(w, before[k])}
    assert changed == set(model.gain_parameters.values())
    norms = {k for k in before if "language_model" in k and "norm" in k}
    assert changed == norms


def test_gains_in_training_stand_in_for_the_models_own(seen, pairs):
    model = seen[0]
    weights = {name: 1.5 * weight for name, weight in model.weights().items()}
    wanted = model.loss(pairs[0], weights)
    assert wanted != model.loss(pairs[0])
    model.set_weights(weights)
    assert torch.equal(wanted, model.loss(pairs[0]))


def test_kept_weights_are_trained_and_pruned_ones_stay_pruned(seen, pairs):
    model = seen[0]
    torch.manual_seed(0)
    for matrix in model.matrices:
        weight = model.linear(matrix.name).weight.data
        weight.mul_(torch.rand_like(weight) > 0.5)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    subjects = [lessons.subject(pairs)]
    trainer = Trainer(model, dict.fromkeys(model.matrix_parameters, 1e-3), subjects)
    assert set(trainer.names) == set(model.matrix_parameters)
    worse = subjects[0].judged(model)
    assert step(trainer, 40).kept
    assert subjects[0].judged(model) < worse
    after = model.model.state_dict()
    changed = {key for key, weight in after.items() if not torch.equal(weight, before[key])}
    assert changed == set(model.matrix_parameters.values())
    for key in changed:
        zero = before[key] == 0
        assert not after[key][zero].any()
        assert (after[key] != before[key])[~zero].float().mean() > 0.5
    assert not any(name.startswith("exp_avg") for name in trainer.state(moments=False))


def test_kept_weights_in_training_stand_in_for_the_models_own(seen, pairs):
    model = seen[0]
    weights = {k: 1.1 * w for k, w in model.weights(model.trainable).items()}
    wanted = model.loss(pairs[0], weights)
    assert wanted != model.loss(pairs[0])
    model.set_weights(weights)
    assert torch.equal(wanted, model.loss(pairs[0]))


def test_subjects_count_as_much_as_they_are_told_to(seen, pairs):
    model, speech = seen
    rows = torch.tensor(speech.tokens(tiny.prose(400)))[:320].view(-1, 16)
    seen_, read = lessons.subject(pairs), lessons.subject(text_batches(rows, model.device, 64))
    rates = dict.fromkeys(model.gain_parameters, 1e-2)
    judged = Trainer(model, rates, [seen_, read], [5.0, 1.0])._judged()
    assert judged == pytest.approx(5 * seen_.judged(model) + read.judged(model))
    alone, beside = Trainer(model, rates, [read]), Trainer(model, rates, [seen_, read], [0.0, 1.0])
    first, second = seen_.training[0], read.training[0]
    assert alone._descend([second], 1.0)
    assert beside._descend([first, second], 1.0)
    for key, weight in alone.state().items():
        assert torch.allclose(weight, beside.state()[key])
