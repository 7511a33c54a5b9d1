"""What the dense model says, against probabilities worked out in full."""

import pytest
import tiny
import torch

from slimsearch import lessons
from slimsearch.calibration import Pair, Turn
from slimsearch.conversation import pair_batches
from slimsearch.projector import ProjectorTrainer
from slimsearch.vlm import IGNORED

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


def damage(model) -> None:
    torch.manual_seed(0)
    for matrix in model.matrices:
        weight = model.linear(matrix.name).weight.data
        weight.mul_(torch.rand_like(weight) > 0.5)


def test_the_distance_is_the_divergence_at_every_word_after_the_picture(seen, pairs):
    model = seen[0]
    dense = [logs(model, batch) for batch in pairs]
    learnt = lessons.learn(model, pairs)
    for lesson in learnt:
        assert abs(lessons.distance(model, lesson).item()) < 1e-5
    damage(model)
    for batch, lesson, before in zip(pairs, learnt, dense, strict=True):
        after, apart = logs(model, batch), {True: [], False: []}
        for row, ids in enumerate(batch.ids.tolist()):
            last = max(place for place, token in enumerate(ids) if token == tiny.IMAGE)
            for place in range(last, len(ids) - 1):
                if ids[place + 1] == tiny.PADDING:
                    continue
                p, q = before[row, place], after[row, place]
                top = p.topk(lessons.TOP).indices.tolist()
                rest = [token for token in range(tiny.VOCABULARY) if token not in top]
                kl = sum(float(p[t].exp() * (p[t] - q[t])) for t in top)
                others = [float(side[rest].exp().sum()) for side in (p, q)]
                kl += others[0] * float(torch.tensor(others[0] / others[1]).log())
                apart[int(batch.targets[row, place]) != IGNORED].append(kl)
        wanted = sum(sum(some) / len(some) for some in apart.values())
        assert lessons.distance(model, lesson).item() == pytest.approx(wanted, rel=1e-3)


def test_following_the_dense_model_brings_a_damaged_one_nearer_to_it(seen, pairs):
    model = seen[0]
    trainer = ProjectorTrainer(model, pairs, 3e-3, model)
    learnt = trainer._lessons
    assert [id(lesson.batch) for lesson in learnt] == [id(batch) for batch in trainer._training]
    damage(model)
    before = sum(lessons.distance(model, lesson).item() for lesson in learnt)
    for _ in range(4):
        for lesson in learnt:
            assert trainer._descend(lesson.batch, lesson, 3e-3)
    model.set_projector(trainer._detached())
    assert sum(lessons.distance(model, lesson).item() for lesson in learnt) < 0.9 * before
