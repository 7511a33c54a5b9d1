"""What the dense model says, against probabilities worked out in full."""

from dataclasses import replace
from math import log

import pytest
import tiny
import torch

from slimsearch.calibration import Pair, Turn
from slimsearch.model.batch import IGNORED
from slimsearch.model.conversation import pair_batches, text_batches
from slimsearch.teaching import lessons
from slimsearch.teaching.said import TOP
from slimsearch.teaching.training import Trainer

TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "blue and more"))


@pytest.fixture
def pairs(seen):
    model, speech = seen
    asked = [Pair(str(n), tiny.picture(n), TURNS[: 1 + n % 2]) for n in range(6)]
    return pair_batches(model, speech, asked, 300)


def logs(model, batch) -> torch.Tensor:
    """Log-probabilities of every next token, [rows, length, vocabulary], by transformers alone."""
    attention = torch.ones_like(batch.ids)
    with torch.no_grad():
        found = model.model(
            inputs_embeds=model.given(batch)["inputs_embeds"],
            attention_mask=attention,
            use_cache=False,
        )
    return found.logits.double().log_softmax(-1)


def divergence(p, q) -> float:
    """KL(p || q) of log-probabilities [vocabulary], all but the likeliest tokens as one."""
    top = p.topk(TOP).indices.tolist()
    rest = [token for token in range(len(p)) if token not in top]
    others = [float(side[rest].exp().sum()) for side in (p, q)]
    kept = sum(float(p[token].exp() * (p[token] - q[token])) for token in top)
    return kept + others[0] * log(others[0] / others[1])


def damage(model) -> None:
    torch.manual_seed(0)
    for matrix in model.matrices:
        weight = model.linear(matrix.name).weight.data
        weight.mul_(torch.rand_like(weight) > 0.5)


def test_the_distance_is_the_divergence_at_every_word_after_the_picture(seen, pairs):
    model = seen[0]
    subject = lessons.subject(pairs, model)
    learnt = [*subject.training, *subject.held]
    dense = [logs(model, lesson.batch) for lesson in learnt]
    for lesson in learnt:
        assert abs(lessons.distance(model, lesson).item()) < 1e-5
    damage(model)
    for lesson, before in zip(learnt, dense, strict=True):
        batch = lesson.batch
        after, apart = logs(model, batch), {True: [], False: []}
        for row, ids in enumerate(batch.ids.tolist()):
            last = max(place for place, token in enumerate(ids) if token == tiny.IMAGE)
            for place in range(last, len(ids) - 1):
                if ids[place + 1] == tiny.PADDING:
                    continue
                p, q = before[row, place], after[row, place]
                kl = divergence(p, q)
                apart[int(batch.targets[row, place]) != IGNORED].append(kl)
        wanted = sum(sum(some) / len(some) for some in apart.values())
        assert lessons.distance(model, lesson).item() == pytest.approx(wanted, rel=1e-3)


def test_following_the_dense_model_brings_a_damaged_one_nearer_to_it(seen, pairs):
    model = seen[0]
    subject = lessons.subject(pairs, model)
    trainer = Trainer(model, dict.fromkeys(model.projector_parameters, 3e-3), [subject])
    damage(model)
    before = sum(lessons.distance(model, lesson).item() for lesson in subject.training)
    for _ in range(4):
        for lesson in subject.training:
            assert trainer._descend([lesson], 1.0)
    model.set_weights(trainer._detached())
    after = sum(lessons.distance(model, lesson).item() for lesson in subject.training)
    assert after < 0.9 * before


def test_every_word_of_a_text_is_learnt_from(seen):
    model, speech = seen
    rows = torch.tensor(speech.tokens(tiny.prose(400)))[:320].view(-1, 16)
    subject = lessons.subject(text_batches(rows, model.device, 64), model)
    dense = {id(lesson): logs(model, lesson.batch) for lesson in subject.held}
    assert subject.judged(model) == pytest.approx(0, abs=1e-5)
    damage(model)
    apart = []
    for lesson in subject.held:
        p, q = dense[id(lesson)][:, :-1].flatten(0, 1), logs(model, lesson.batch)[:, :-1]
        found = [divergence(*two) for two in zip(p, q.flatten(0, 1), strict=True)]
        apart.append(sum(found) / len(found))
    assert subject.judged(model) == pytest.approx(sum(apart) / len(apart), rel=1e-3)


def test_questions_are_also_asked_about_pictures_that_they_were_not_written_for(seen):
    model, speech = seen
    asked = [Pair(str(n), tiny.picture(n), TURNS[: 1 + n % 2]) for n in range(20)]
    rows = pair_batches(model, speech, asked, 300)
    plain, more = lessons.subject(rows), lessons.subject(rows, model, 3)
    kept = [lesson.batch for lesson in plain.training]
    assert all(torch.equal(more.training[k].batch.ids, own.ids) for k, own in enumerate(kept))
    assert len(more.training) == (1 + 3) * len(kept)
    held = {id(look) for lesson in more.held for look in lesson.batch.looks}
    for place, lesson in enumerate(more.training[len(kept) :]):
        batch, own = lesson.batch, kept[place % len(kept)]
        assert torch.equal(batch.ids, own.ids)
        assert not {id(look) for look in batch.looks} & ({id(look) for look in own.looks} | held)
        assert lessons.distance(model, lesson).item() == pytest.approx(0, abs=1e-5)
    damage(model)
    first, again = more.training[0], more.training[len(kept)]  # the same words
    assert lessons.distance(model, first) != lessons.distance(model, again)


def test_pictures_of_other_shapes_are_not_exchanged(seen):
    model, speech = seen
    rows = [row for b in pair_batches(
        model, speech, [Pair(str(n), tiny.picture(n), TURNS) for n in range(6)], 300
    ) for row in b.split(1)]  # fmt: skip
    assert len(lessons._exchanged(rows[:3], model, 6)) == 6
    (given,) = rows[0].looks[0].given
    other = replace(rows[0].looks[0], given=(given[..., :-1, :],))
    assert len(lessons._exchanged([replace(rows[0], looks=(other,)), *rows[1:3]], model, 6)) == 2
    assert lessons._exchanged(rows[:1], model, 6) == []
