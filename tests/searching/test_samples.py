"""Sample answers: taken where two models part, by what each really says."""

import pytest
import tiny
import torch
from PIL import Image

from slimsearch.calibration import Pair, Turn
from slimsearch.model import conversation
from slimsearch.searching import samples

TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "blue and more"))


@pytest.fixture
def held(seen):
    """Pairs of a tiny LLaVA as batches, and a way to prune it and to take that back."""
    vlm, speech = seen
    pairs = [Pair(f"pair {n}", tiny.picture(n), TURNS[: 1 + n % 2]) for n in range(5)]
    batches = conversation.pair_batches(vlm, speech, pairs, 150)
    weight = vlm.linear("blocks.1.down").weight
    dense = weight.detach().clone()
    put_on = {
        "dense": lambda: weight.data.copy_(dense),
        "pruned": lambda: weight.data.copy_(torch.where(dense.abs() > 0.3, dense, 0)),
    }
    return vlm, speech, pairs, batches, put_on


def alone(vlm, speech, pair, turn) -> str:
    """What the model says to one question by itself, a whole forward pass for each token."""
    shown = speech.show(pair.open())
    ids = conversation.question_ids(speech, pair.turns[: turn + 1], shown)
    said: list[int] = []
    for _ in range(conversation.ANSWER_TOKENS):
        with torch.no_grad():
            out = vlm.model(input_ids=torch.tensor([[*ids, *said]]), **shown.inputs)
        said.append(int(out.logits[0, -1].argmax()))
        if said[-1] in speech.ends:
            break
    return speech.decode(said).strip()


def test_both_models_are_quoted_as_they_answer(held, tmp_path):
    vlm, speech, pairs, batches, put_on = held
    found = samples.take(vlm, speech, pairs, batches, put_on, tmp_path / "samples")
    assert found["asked"] == sum(len(pair.turns) for pair in pairs)
    assert 0 < found["differing"] <= found["asked"]
    assert len(found["samples"]) <= samples.MOST
    of = {pair.origin: pair for pair in pairs}
    for sample in found["samples"]:
        pair = of[sample["origin"]]
        turn = [turn.question for turn in pair.turns].index(sample["question"])
        assert sample["expected"] == pair.turns[turn].answer
        for model in ("dense", "pruned"):
            put_on[model]()
            assert sample[model] == alone(vlm, speech, pair, turn)
        with Image.open(tmp_path / "samples" / sample["picture"]) as kept:
            assert kept.convert("RGB").tobytes() == pair.open().tobytes()
    assert any(sample["dense"] != sample["pruned"] for sample in found["samples"])


def test_the_pruned_model_stays(held, tmp_path):
    vlm, speech, pairs, batches, put_on = held
    put_on["pruned"]()
    wanted = vlm.linear("blocks.1.down").weight.clone()
    put_on["dense"]()
    samples.take(vlm, speech, pairs, batches, put_on, tmp_path / "samples")
    assert torch.equal(vlm.linear("blocks.1.down").weight, wanted)


def test_two_models_that_are_one_differ_nowhere(held, tmp_path):
    vlm, speech, pairs, batches, put_on = held
    same = {"dense": put_on["dense"], "pruned": put_on["dense"]}
    found = samples.take(vlm, speech, pairs, batches, same, tmp_path / "samples")
    assert found["differing"] == 0
    assert len(found["samples"]) == samples.ALIKE
    assert all(sample["dense"] == sample["pruned"] for sample in found["samples"])


def test_a_large_picture_is_kept_small(held, tmp_path):
    vlm, speech, _, _, put_on = held
    pairs = [Pair("large", Image.new("RGB", (900, 600), "red"), TURNS)]
    batches = conversation.pair_batches(vlm, speech, pairs, 150)
    found = samples.take(vlm, speech, pairs, batches, put_on, tmp_path / "samples")
    names = {sample["picture"] for sample in found["samples"]}
    assert all(name.endswith(".jpg") for name in names)
    for name in names:
        with Image.open(tmp_path / "samples" / name) as kept:
            assert max(kept.size) == samples.WIDEST
