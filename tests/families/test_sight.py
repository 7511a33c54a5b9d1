"""What the decoder is given is what transformers gives it, whatever the family and the picture."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tiny_families
import torch
from PIL import Image
from torch.nn import functional

from slimsearch.calibration import Pair, Turn
from slimsearch.model import checkpoint, conversation, loading, streaming
from slimsearch.model.batch import batches_of
from slimsearch.model.conversation import pair_batches, text_batches
from slimsearch.model.decoding import Prompt, greedy
from slimsearch.model.resident import Resident
from slimsearch.routes.kinds import PROMPT, TEXT
from slimsearch.surgery.walk import walk

TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "blue and more"))
SIZES = ((16, 16), (40, 20), (20, 45), (33, 33), (40, 20))  # square, wide, tall, large
every_eye = pytest.mark.parametrize("family", tiny_families.VISION)
every_family = pytest.mark.parametrize("family", [*tiny_families.TEXT, *tiny_families.VISION])


def picture(number: int, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def pairs() -> list[Pair]:
    return [Pair(str(n), picture(n, *size), TURNS[: 1 + n % 2]) for n, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders of this module, each made once."""
    place, made = tmp_path_factory.mktemp("families"), {}

    def folder(family: str):
        if family not in made:
            made[family] = tiny_families.make(family, place / family, blocks=3)
        return made[family]

    return folder


@pytest.fixture
def opened(family, folders):
    found = checkpoint.find(str(folders(family)))
    return loading.load(found, "cpu", "float32"), conversation.load(found)


def by_transformers(model, speech, pair: Pair) -> dict[str, torch.Tensor]:
    """A whole conversation by the family's own processor, in one call."""
    turns = pair.turns[: model.architecture.most_turns]
    if model.architecture.most_turns == 1:  # PaliGemma
        said = {"text": "<image>" + turns[0].question, "suffix": turns[0].answer}
    else:
        text = speech.render(turns, len(turns))
        said = {"text": [text], "add_special_tokens": not text.startswith("<s>")}
    more = {"return_mm_token_type_ids": True} if "mm_token_type_ids" in model.architecture.marks \
        else {}  # fmt: skip
    made = dict(speech.processor(images=[pair.picture], return_tensors="pt", **said, **more))
    made.pop("labels", None)
    return made


@every_eye
def test_pictures_enter_as_the_models_own_forward_has_them(family, opened):
    model, speech = opened
    for pair in pairs():
        (batch,) = pair_batches(model, speech, [pair], 10_000)
        inputs = by_transformers(model, speech, pair)
        assert torch.equal(batch.ids, inputs["input_ids"])
        with torch.no_grad():
            wanted = model.model.model(**inputs).last_hidden_state
            found = model.hidden(model.given(batch))
        assert torch.allclose(found, wanted, atol=1e-5)


@every_eye
def test_pictures_and_questions_are_prompt_and_answers_are_text(family, opened):
    model, speech = opened
    for pair in pairs():
        (batch,) = pair_batches(model, speech, [pair], 10_000)
        turns = pair.turns[: model.architecture.most_turns]
        places = batch.ids == model.picture_token
        assert bool(places.any())
        assert bool((batch.classes[places] == PROMPT).all())
        spoken = speech.tokenizer.decode(batch.ids[batch.classes == TEXT])
        end = speech.tokenizer.decode(batch.ids[batch.classes == TEXT][-1:])
        assert end in speech.tokenizer.get_added_vocab()
        said = [part.strip() for part in spoken.split(end)]
        assert said == [*(turn.answer for turn in turns), ""]
        answers = batch.turns[batch.targets != -100]
        assert set(answers.tolist()) == set(range(len(turns)))


@every_eye
def test_sizes_differ_within_a_batch(family, opened):
    model, speech = opened
    alone = [pair_batches(model, speech, [pair], 10_000)[0] for pair in pairs()]
    together = batches_of(alone, 10**6, speech.padding)
    (batch,) = together
    with torch.no_grad():
        hidden = model.hidden(model.given(batch))
        rows = sorted(alone, key=lambda row: row.ids.shape[1])
        for row, one in zip(hidden, rows, strict=True):
            wanted = model.hidden(model.given(one))[0]
            assert torch.allclose(row[: len(wanted)], wanted, atol=1e-4)
    assert model.mean_loss([batch]) == pytest.approx(model.mean_loss(alone), rel=1e-5)


@every_eye
def test_every_weight_of_the_projector_is_reached(family, opened):
    """The gradient is that of the model's own forward, the tower computing."""
    model, speech = opened
    pair = pairs()[1]
    (batch,) = pair_batches(model, speech, [pair], 10_000)
    places = model.projector_parameters
    weights = {name: weight.requires_grad_() for name, weight in model.weights(places).items()}
    model.loss(batch, weights).backward()
    own = {name: model.model.get_parameter(place) for name, place in places.items()}
    for weight in own.values():
        weight.requires_grad_()
    inputs = by_transformers(model, speech, pair)
    hidden = model.model.model(**inputs).last_hidden_state
    logits = model.model.get_output_embeddings()(hidden)
    functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), reduction="sum"
    ).backward()
    for name, weight in weights.items():
        assert bool(weight.grad.any()), name
        scale = float(own[name].grad.abs().max())
        assert torch.allclose(weight.grad, own[name].grad, atol=1e-4 * max(scale, 1e-3)), name


@every_eye
def test_it_says_what_generate_says_side_by_side(family, opened):
    model, speech = opened
    turns, prompts, wanted = [Turn("What is it?", None)], [], []
    model.model.generation_config.eos_token_id = None
    for pair in pairs()[:3]:
        shown = speech.show(pair.picture)
        ids = conversation.question_ids(speech, turns, shown)
        prompts.append(Prompt(ids, shown=shown.inputs))
        row = torch.tensor([ids])
        made = model.model.generate(
            input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=6, do_sample=False,
            **shown.inputs, **model.marks(row, torch.full_like(row, PROMPT)),
        )  # fmt: skip
        wanted.append(made[0, len(ids) :].tolist())
    assert greedy(Resident(model), prompts, frozenset(), 6) == wanted
    assert [greedy(Resident(model), [one], frozenset(), 6)[0] for one in prompts] == wanted


@every_family
def test_hessians_are_those_of_whole_passes(family, opened):
    """Windows, masks and positions of each block are its own, and what is added between blocks."""
    model, speech = opened
    ids = torch.randint(5, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    batches = text_batches(ids, model.device, 40)
    if model.sees:
        batches += pair_batches(model, speech, pairs(), 200)
    else:
        own = model.model(input_ids=ids, labels=ids).loss.item()
        assert model.mean_loss(batches) == pytest.approx(own, rel=1e-5)
    firsts = [f"blocks.{block}.{next(iter(stage))}" for block in range(3) for stage in model.stages]
    wanted = reference.hessians(model, batches, firsts)
    stops = list(walk(model, batches, "both", pruned_inputs=False))
    assert [stop.matrices[0] for stop in stops] == firsts
    for stop in stops:
        expected = wanted[stop.matrices[0]]
        assert stop.hessian.tokens == expected.tokens
        scale = float(expected.matrix.abs().max())
        assert torch.allclose(stop.hessian.matrix, expected.matrix, atol=1e-5 * scale)
    streamed = streaming.load(model.checkpoint, "cpu", "float32")
    if model.sees:
        batches[2:] = pair_batches(streamed, speech, pairs(), 200)
    for stop, again in zip(
        stops, walk(streamed, batches, "both", pruned_inputs=False), strict=True
    ):
        assert torch.equal(stop.hessian.matrix, again.hessian.matrix)
