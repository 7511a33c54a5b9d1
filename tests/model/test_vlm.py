"""Losses, embeddings and answers are those of transformers' own model."""

import pytest
import tiny
import torch
from torch.nn import functional

from slimsearch.calibration import Pair, Turn
from slimsearch.errors import ModelError
from slimsearch.model import conversation
from slimsearch.model.batch import IGNORED, Batch, batches_of
from slimsearch.model.conversation import pair_batches, text_batches
from slimsearch.model.loading import pick_device
from slimsearch.routes.kinds import PADDING

TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "blue and more"),
         Turn("Is it a square?", "yes. more of it"))  # fmt: skip


def some_pairs(count: int = 5) -> list[Pair]:
    return [Pair(str(n), tiny.picture(n), TURNS[: 1 + n % 3]) for n in range(count)]


def messages(turns) -> list[dict]:
    found = []
    for n, turn in enumerate(turns):
        place = [] if n else [{"type": "image"}]
        found.append({"role": "user", "content": [*place, {"type": "text", "text": turn.question}]})
        answer = [{"type": "text", "text": turn.answer}]
        found.append({"role": "assistant", "content": answer})
    return found


def inputs_of(speech, pair: Pair):
    """What the real processor makes of a whole conversation."""
    text = speech.processor.apply_chat_template(messages(pair.turns))
    return speech.processor(
        images=pair.picture, text=text, return_tensors="pt", add_special_tokens=False
    )


def labels_of(speech, pair: Pair, ids: torch.Tensor) -> torch.Tensor:
    """Answers and what ends them, marked by counting tokens of the conversation's beginnings."""
    labels = torch.full_like(ids, IGNORED)
    for n in range(len(pair.turns)):
        spoken = messages(pair.turns)
        lengths = []
        for some, more in ((spoken[: 2 * n + 1], True), (spoken[: 2 * n + 2], False)):
            text = speech.processor.apply_chat_template(some, add_generation_prompt=more)
            made = speech.processor(
                images=pair.picture, text=text, return_tensors="pt", add_special_tokens=False
            )
            lengths.append(made["input_ids"].shape[1])
        labels[:, lengths[0] : lengths[1]] = ids[:, lengths[0] : lengths[1]]
    return labels


def test_the_loss_of_pairs_is_transformers_own(seen):
    model, speech = seen
    total = count = 0
    for pair in some_pairs():
        inputs = inputs_of(speech, pair)
        labels = labels_of(speech, pair, inputs["input_ids"])
        targets = int((labels[:, 1:] != IGNORED).sum())
        total += model.model(**inputs, labels=labels).loss.item() * targets
        count += targets
    batches = pair_batches(model, speech, some_pairs(), 300)
    assert len(batches) > 1
    assert sum(int((b.targets != IGNORED).sum()) for b in batches) == count
    assert model.mean_loss(batches) == pytest.approx(total / count, rel=1e-5)
    assert sum(model.loss(b).item() for b in batches) == pytest.approx(total, rel=1e-5)


def test_the_loss_of_text_is_transformers_own(seen):
    model, _ = seen
    ids = torch.randint(5, tiny.VOCABULARY, (6, 20), generator=torch.Generator().manual_seed(0))
    wanted = model.model(input_ids=ids, labels=ids).loss.item()
    for most in (1, 40, 10_000):
        assert model.mean_loss(text_batches(ids, model.device, most)) == pytest.approx(wanted)


def test_pictures_enter_as_the_model_itself_merges_them(seen):
    model, speech = seen
    for pair in some_pairs(3):
        (batch,) = pair_batches(model, speech, [pair], 1000)
        inputs = inputs_of(speech, pair)
        assert torch.equal(batch.ids, inputs["input_ids"])
        caught = {}
        hook = model.decoder.register_forward_pre_hook(
            lambda _, args, given, caught=caught: caught.update(given), with_kwargs=True
        )
        model.model(**inputs)
        hook.remove()
        assert torch.equal(model.given(batch)["inputs_embeds"], caught["inputs_embeds"])


def test_a_replaced_projector_is_used(seen):
    model, speech = seen
    (batch,) = pair_batches(model, speech, some_pairs(1), 1000)
    places = batch.ids == tiny.IMAGE
    weights = {
        name: torch.zeros_like(w) for name, w in model.weights(model.projector_parameters).items()
    }
    weights["linear_2.bias"] += 1
    embeds = model.given(batch, weights)["inputs_embeds"]
    assert bool((embeds[places] == 1).all())
    before = model.given(batch)["inputs_embeds"]
    assert torch.equal(embeds[~places], before[~places])
    assert not bool((before[places] == 1).any())


def test_pictures_of_a_batch_stay_with_their_rows(seen):
    model, speech = seen
    pairs = some_pairs(4)
    (together,) = pair_batches(model, speech, pairs, 10_000)
    alone = [pair_batches(model, speech, [pair], 10_000)[0] for pair in pairs]
    embedded = [model.given(b)["inputs_embeds"][0] for b in alone]
    assert len(together.ids) == 4
    embeds = model.given(together)["inputs_embeds"]
    pictures = [b.looks[0].given[0] for b in alone]
    assert not torch.allclose(pictures[0], pictures[1])
    for look, classes, row in zip(together.looks, together.classes, embeds, strict=True):
        length = int((classes != PADDING).sum())
        (match,) = [n for n in range(4) if torch.allclose(pictures[n], look.given[0], atol=1e-6)]
        assert torch.allclose(row[:length], embedded[match], atol=1e-5)


def test_answers_are_right_where_greedy_decoding_gives_them(seen):
    """The model's own greedy answers are right; any other is wrong."""
    model, speech = seen
    unanswered = [Pair("0", tiny.picture(0), (Turn("What colour is it?", None),))]
    (batch,) = pair_batches(model, speech, unanswered, 1000)
    made = model.model(
        inputs_embeds=model.given(batch)["inputs_embeds"], attention_mask=torch.ones_like(batch.ids)
    ).logits.argmax(-1)
    where = batch.targets != IGNORED
    wanted = bool((made[where] == batch.targets[where]).all())
    assert model.answers_right(batch) == [[wanted]]
    right = Batch(batch.ids, torch.where(where, made, IGNORED), batch.classes, batch.turns,
                  batch.looks)  # fmt: skip
    assert model.answers_right(right) == [[True]]
    for place in where[0].nonzero().flatten().tolist():
        wrong = right.targets.clone()
        wrong[0, place] = (wrong[0, place] + 1) % tiny.VOCABULARY
        assert model.answers_right(
            Batch(batch.ids, wrong, batch.classes, batch.turns, batch.looks)
        ) == [[False]]


def test_each_answer_of_each_row_is_judged_alone(seen):
    model, speech = seen
    (batch,) = pair_batches(model, speech, some_pairs(5), 10_000)
    logits = model.logits(model.decoder(**model.given(batch)).last_hidden_state)
    wanted = []
    for row in range(5):
        turns = {}
        for place in (batch.targets[row] != IGNORED).nonzero().flatten().tolist():
            hit = bool(logits[row, place].argmax() == batch.targets[row, place])
            turns.setdefault(int(batch.turns[row, place]), []).append(hit)
        wanted.append([all(hits) for hits in turns.values()])
    assert model.answers_right(batch) == wanted
    assert sorted(map(len, wanted)) == [1, 1, 2, 2, 3]


def test_padding_changes_nothing(seen):
    model, speech = seen
    batches = pair_batches(model, speech, some_pairs(5), 1)
    assert len(batches) == 5
    (together,) = batches_of(batches, 10_000, tiny.PADDING)
    assert together.tokens == sum(b.tokens for b in batches)
    assert bool((together.classes == PADDING).any())
    assert model.mean_loss([together]) == pytest.approx(model.mean_loss(batches), rel=1e-6)
    other = Batch(
        torch.where(together.classes == PADDING, 77, together.ids), together.targets,
        together.classes, together.turns, together.looks,
    )  # fmt: skip
    assert model.mean_loss([other]) == model.mean_loss([together])


def test_batches_stay_within_their_tokens(seen):
    model, speech = seen
    rows = pair_batches(model, speech, some_pairs(5), 1)
    longest = max(row.ids.shape[1] for row in rows)
    for most in (longest, 2 * longest, 10_000):
        packed = list(batches_of(rows, most, 0))
        assert all(batch.ids.numel() <= most for batch in packed)
        assert sum(len(batch.ids) for batch in packed) == 5


def test_tunable_weights_go_out_and_in(seen):
    model, _ = seen
    before = model.weights()
    assert {weight.dtype for weight in before.values()} == {torch.float32}
    before_copy = {key: weight.clone() for key, weight in before.items()}
    model.set_weights({key: weight + 1 for key, weight in before.items()})
    assert all(torch.equal(before[key], weight) for key, weight in before_copy.items())
    after = model.weights()
    assert all(torch.allclose(after[key], weight + 1) for key, weight in before.items())


def test_nothing_on_a_loaded_model_learns(seen):
    assert not any(weight.requires_grad for weight in seen[0].model.parameters())
    assert not seen[0].model.training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_that_was_asked_for(load, llava_16, dtype):
    model = load(llava_16, dtype)
    assert model.dtype == getattr(torch, dtype)
    assert model.disk_dtype == torch.bfloat16
    loss = model.loss(text_batches(torch.arange(5, 25)[None], model.device, 100)[0])
    assert loss.dtype == torch.float32


def test_logits_are_fp32_and_the_heads_own(seen):
    model, _ = seen
    hidden = torch.randn(3, 32)
    wanted = functional.linear(hidden, model.model.get_output_embeddings().weight)
    assert torch.allclose(model.logits(hidden), wanted)


def test_what_is_missing_is_refused(load, models):
    import json

    from safetensors.torch import load_file, save_file

    folder = tiny.llava(models / "lacking")
    weights = load_file(folder / "model.safetensors")
    del weights["model.language_model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors.*up_proj"):
        load(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(ModelError, match=r"is a 'mamba'\. Looked for .*/mamba\.py .*llama, llava"):
        load(folder)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    for name in ("cuda:99", "gpu", "meta7"):
        with pytest.raises(ModelError, match=f"Device '{name}' is not to be had"):
            pick_device(name)


def test_speech_of_a_text_model_has_no_processor(load, llama):
    model = load(llama)
    speech = conversation.load(model.checkpoint)
    assert speech.processor is None
    assert not model.sees
    assert not model.projector_parameters
    assert set(model.tunable) == set(model.gain_parameters)
    assert speech.tokens("red")[0] == tiny.BEGIN


def test_a_batch_in_parts_is_the_same_rows(seen):
    model, speech = seen
    turns = (Turn("What colour is it?", "red"),)
    pairs = [Pair(str(n), tiny.picture(n), turns) for n in range(5)]
    (batch,) = pair_batches(model, speech, pairs, 10_000)
    (text,) = text_batches(torch.arange(5, 45).view(4, 10), model.device, 1000)
    for whole, rows in ((batch, 2), (batch, 1), (text, 3)):
        parts = whole.split(rows)
        assert [len(part.ids) for part in parts[:-1]] == [rows] * (len(parts) - 1)
        for name in ("ids", "targets", "classes", "turns"):
            if getattr(whole, name) is not None:
                joined = torch.cat([getattr(part, name) for part in parts])
                assert torch.equal(joined, getattr(whole, name))
        assert model.mean_loss(parts) == pytest.approx(model.mean_loss([whole]), rel=1e-5)
