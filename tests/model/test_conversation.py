"""Conversations become tokens as the processor makes them, every token in its class."""

import copy
from dataclasses import replace

import pytest
import tiny
import torch

from slimsearch.calibration import Pair, Turn
from slimsearch.errors import CalibrationError, ModelError
from slimsearch.model import conversation
from slimsearch.model.batch import IGNORED
from slimsearch.model.conversation import ANSWER_TOKENS, Speech, pair_batches, text_batches
from slimsearch.routes.kinds import PROMPT, TEXT

TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "red and more"))
LONG = tuple(Turn(f"What colour is number {n} of the row?", "blue and more") for n in range(20))


def batch_of(seen, turns, number: int = 0):
    model, speech = seen
    (batch,) = pair_batches(model, speech, [Pair("it", tiny.picture(number), turns)], 10_000)
    return batch


def decoded(seen, ids: torch.Tensor) -> str:
    return seen[1].tokenizer.decode(ids)


def test_ids_are_the_processors(seen):
    _, speech = seen
    text = "<s>USER: <image>\nWhat colour is it? ASSISTANT: red</s>"
    inputs = speech.processor(images=tiny.picture(0), text=text, return_tensors="pt",
                              add_special_tokens=False)  # fmt: skip
    batch = batch_of(seen, TURNS[:1])
    assert torch.equal(batch.ids, inputs["input_ids"])
    assert int((batch.ids == tiny.IMAGE).sum()) == tiny.VISUAL_TOKENS
    assert int((batch.ids == tiny.BEGIN).sum()) == 1


def test_answers_are_text_and_all_else_is_prompt(seen):
    batch = batch_of(seen, TURNS)
    ids, classes = batch.ids[0], batch.classes[0]
    assert bool((classes[ids == tiny.IMAGE] == PROMPT).all())
    spoken = "".join(decoded(seen, ids[n : n + 1]) for n in range(len(ids)) if classes[n] == TEXT)
    assert spoken == " red</s> red and more</s>"
    asked = "".join(decoded(seen, ids[n : n + 1]) for n in range(len(ids)) if classes[n] == PROMPT)
    assert asked == (
        "<s>USER: " + "<image>" * tiny.VISUAL_TOKENS + "\nWhat colour is it? ASSISTANT:"
        "USER: And around that? ASSISTANT:"
    )


def test_targets_are_the_answers_one_place_earlier(seen):
    batch = batch_of(seen, TURNS)
    where = batch.targets[0] != IGNORED
    places = where.nonzero().flatten()
    assert torch.equal(batch.targets[0][places], batch.ids[0][places + 1])
    assert bool((batch.classes[0][places + 1] == TEXT).all())
    assert int(where.sum()) == int((batch.classes == TEXT).sum())
    for turn, said in ((0, " red</s>"), (1, " red and more</s>")):
        of_turn = batch.targets[0][where & (batch.turns[0] == turn)]
        assert decoded(seen, of_turn) == said


def test_an_answer_that_stands_in_the_question_is_not_mistaken(seen):
    batch = batch_of(seen, (Turn("Is it red or red?", "red"), Turn("red", "USER")))
    spoken = batch.ids[0][batch.classes[0] == TEXT]
    assert decoded(seen, spoken) == " red</s> USER</s>"


def test_text_predicts_every_token_but_the_first():
    segments = torch.arange(12).view(2, 6)
    (batch,) = text_batches(segments, torch.device("cpu"), 100)
    assert torch.equal(batch.targets[:, :-1], segments[:, 1:])
    assert bool((batch.targets[:, -1] == IGNORED).all())
    assert bool((batch.classes == TEXT).all())
    assert batch.looks is None


@pytest.mark.parametrize(("most", "batches"), [(1, 7), (6, 7), (12, 4), (42, 1)])
def test_text_batches_stay_within_their_tokens(most, batches):
    found = text_batches(torch.zeros(7, 6, dtype=torch.int64), torch.device("cpu"), most)
    assert len(found) == batches
    assert sum(len(batch.ids) for batch in found) == 7


def test_a_long_conversation_loses_turns_at_its_end(seen):
    batch = batch_of(seen, LONG)
    assert batch.ids.shape[1] <= 256
    kept = int(batch.turns.max()) + 1
    assert 1 < kept < len(LONG)
    assert torch.equal(batch.ids, batch_of(seen, LONG[:kept]).ids)
    longer = len(conversation.question_ids(
        seen[1], LONG[: kept + 1], seen[1].show(tiny.picture(0))))  # fmt: skip
    assert longer + 4 > 256


def test_a_conversation_without_an_end_is_read_as_far_as_the_model_reads(seen, monkeypatch):
    rendered = []
    render = Speech.render

    def counted(self, turns, *given, **named):
        rendered.append(len(turns))
        return render(self, turns, *given, **named)

    monkeypatch.setattr(Speech, "render", counted)
    batch = batch_of(seen, LONG * 2500)
    assert torch.equal(batch.ids, batch_of(seen, LONG).ids)
    assert max(rendered) <= 256, "a turn takes a token at least"
    assert len(rendered) < 100


def test_one_question_that_is_too_long_is_refused_by_name(seen):
    with pytest.raises(CalibrationError, match=r"^it makes \d+ tokens; this model reads 256"):
        batch_of(seen, (Turn("red " * 300, "blue"),))


def test_a_missing_answer_is_the_models_own(seen):
    model, speech = seen
    batch = batch_of(seen, (Turn("What colour is it?", None), Turn("And now?", "blue")), number=3)
    asked = [{"type": "image"}, {"type": "text", "text": "What colour is it?"}]
    prompt = speech.processor.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True
    )
    inputs = speech.processor(images=tiny.picture(3), text=prompt, return_tensors="pt",
                              add_special_tokens=False)  # fmt: skip
    made = model.model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)
    said = speech.tokenizer.decode(
        made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    ).strip()
    own = batch.ids[0][(batch.classes[0] == TEXT)]
    assert decoded(seen, own) == f" {said}</s> blue</s>"


def untaught(speech: Speech) -> Speech:
    """The same without a chat template."""
    processor = copy.copy(speech.processor)
    processor.chat_template = None
    return replace(speech, processor=processor)


def test_a_checkpoint_without_a_template_speaks_as_llava_does(seen):
    bare = untaught(seen[1])
    assert bare.render(TURNS, 2) == (
        "USER: <image>\nWhat colour is it? ASSISTANT: red</s>"
        "USER: And around that? ASSISTANT: red and more</s>"
    )
    assert bare.render(TURNS, 1) == (
        "USER: <image>\nWhat colour is it? ASSISTANT: red</s>USER: And around that? ASSISTANT:"
    )


def test_without_a_template_classes_hold_too(seen):
    model, speech = seen
    batch = batch_of((model, untaught(speech)), TURNS)
    spoken = batch.ids[0][batch.classes[0] == TEXT]
    assert decoded(seen, spoken) == " red</s> red and more</s>"
    assert int(batch.ids[0, 0]) == tiny.BEGIN


def test_pictures_are_seen_alike_alone_and_together(seen):
    model, speech = seen
    pairs = [Pair(str(n), tiny.picture(n), TURNS) for n in range(20)]
    (batch,) = pair_batches(model, speech, pairs, 100_000)
    for pair, look in zip(pairs, batch.looks, strict=True):
        (alone,) = model.sight.look([speech.show(pair.open()).inputs])
        assert torch.allclose(look.given[0], alone.given[0], atol=1e-5)


def test_a_folder_without_a_processor_is_refused(llava, tmp_path):
    import shutil

    from slimsearch.model import checkpoint

    folder = shutil.copytree(llava, tmp_path / "m")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="processor"):
        conversation.load(checkpoint.find(str(folder)))


def test_a_processor_that_lacks_numbers_is_told_what_it_lacks(seen):
    _, speech = seen
    processor = copy.deepcopy(speech.processor)
    processor.patch_size = None
    lacking = replace(speech, processor=processor)
    with pytest.raises(ModelError, match=r"LlavaProcessor cannot make .*processor_config\.json"):
        lacking.show(tiny.picture(0))
