"""The projector of a pruned model, retrained by itself."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file

from slimsearch import calibration
from slimsearch.api import pruning, tuning
from slimsearch.calibration import Pair, Turn
from slimsearch.errors import CalibrationError, ModelError, RunError
from slimsearch.model import checkpoint, conversation
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.teaching import lessons


@pytest.fixture(scope="module")
def pruned(llava, pairs_file, text_file, tmp_path_factory):
    """A tiny LLaVA, half of it gone."""
    settings = replace(tiny.settings(llava, pairs_file, text_file), policy="uniform")
    return pruning.prune(settings, tmp_path_factory.mktemp("pruned") / "model", Watch()).folder


def changes(pairs_file, **more) -> dict:
    return {"pairs": str(pairs_file), "pair_count": 14, "final_steps": 12, **more}


def test_only_the_projector_changes_and_held_out_answers_get_likelier(pruned, pairs_file, tmp_path):
    learnt = changes(pairs_file, projector_lessons="answers")
    done = tuning.tune(str(pruned), learnt, tmp_path / "tuned", "", Watch())
    before, after = (load_file(folder / "model.safetensors") for folder in (pruned, done.folder))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if "multi_modal_projector" in key}
    assert done.step.kept
    assert [row.name for row in done.table] == ["before", "after"]
    assert done.table[1].figures["answer_loss"] < done.table[0].figures["answer_loss"]
    assert done.table[0].sparsity == done.table[1].sparsity == pytest.approx(0.5, abs=1e-3)
    told = json.loads((done.folder / "slimsearch.json").read_text())
    assert told["base"] == json.loads((pruned / "slimsearch.json").read_text())["base"]
    assert told["projector"]["after"] == done.step.after


def test_it_follows_the_dense_model_where_that_is_known(pruned, llava, pairs_file, load, tmp_path):
    done = tuning.tune(str(pruned), changes(pairs_file), tmp_path / "tuned", "", Watch())
    assert done.step.kept
    model, speech = load(pruned), conversation.load(checkpoint.find(str(pruned)))
    given = Settings(pairs=str(pairs_file), pair_count=14)
    batches = conversation.pair_batches(
        model, speech, calibration.gather_pairs_only(given).held, 1000
    )
    unseen = lessons.subject(batches, load(llava)).training
    far, near = (
        sum(lessons.distance(load(folder), lesson).item() for lesson in unseen)
        for folder in (pruned, done.folder)
    )
    assert near < far


def test_without_the_dense_model_it_learns_the_answers_and_says_so(pruned, pairs_file, tmp_path):
    told, watch = pruned / "slimsearch.json", tiny.Notes()
    kept = told.read_text()
    told.write_text(kept.replace(json.loads(kept)["base"], str(tmp_path / "moved")))
    done = tuning.tune(str(pruned), changes(pairs_file), tmp_path / "tuned", "", watch)
    told.write_text(kept)
    assert done.step.kept
    assert any("moved" in note and "--teacher" in note for note in watch.notes)


def test_what_does_not_help_leaves_the_model_as_it_was(pruned, pairs_file, tmp_path):
    hopeless = changes(pairs_file, projector_rate=0.0)
    done = tuning.tune(str(pruned), hopeless, tmp_path / "tuned", "", Watch())
    assert not done.step.kept
    assert "did not help" in done.step.note
    assert done.table[0].figures == done.table[1].figures
    name = "model.safetensors"
    assert (done.folder / name).read_bytes() == (pruned / name).read_bytes()


def test_a_projector_from_scratch_replaces_the_old_one(pruned, pairs_file, load, tmp_path):
    fresh = load(pruned).fresh_projector(0)
    old = load(pruned).weights(load(pruned).projector_parameters)
    assert set(fresh) == set(old)
    assert all(fresh[name].shape == weight.shape for name, weight in old.items())
    assert not any(torch.equal(fresh[n], w) for n, w in old.items() if w.ndim > 1)
    learnt = changes(pairs_file, projector_start="fresh", projector_rate=1e-2, final_steps=30)
    done = tuning.tune(str(pruned), learnt, tmp_path / "tuned", "", Watch())
    assert done.step.kept
    found = load(done.folder)
    for name, weight in found.weights(fresh).items():
        near, far = ((weight - some[name]).abs().mean() for some in (fresh, old))
        assert near < far or weight.ndim == 1
    assert bool(done.step.note) == (done.step.after >= done.step.before)


def test_pictures_without_text_are_answered_by_the_dense_model(
    pruned, llava, load, tmp_path, monkeypatch
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        tiny.picture(number).save(folder / f"{number}.png")
    answerers, real = [], conversation.answered

    def answered(vlm, speech, pairs):
        answerers.append(vlm.checkpoint.folder)
        return real(vlm, speech, pairs)

    monkeypatch.setattr(conversation, "answered", answered)
    tuning.tune(str(pruned), changes(folder, final_steps=2), tmp_path / "one", "", Watch())
    assert set(answerers) == {llava}  # as slimsearch.json names it
    (pruned_by_others := tmp_path / "others").mkdir()
    for file in pruned.iterdir():
        if file.name != "slimsearch.json":
            (pruned_by_others / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CalibrationError, match="--teacher"):
        tuning.tune(str(pruned_by_others), changes(folder), tmp_path / "two", "", Watch())
    assert not (tmp_path / "two").exists()
    done = tuning.tune(
        str(pruned_by_others), changes(folder, final_steps=2), tmp_path / "two", str(llava), Watch()
    )
    assert done.folder.exists()


def test_answers_are_those_of_greedy_decoding(seen):
    """Against the model's own generate, without our cache and embeddings."""
    model, speech = seen
    asked = Pair("1", tiny.picture(1), (Turn("What colour is it?", None),))
    kept = Pair("2", tiny.picture(2), (Turn("What colour is it?", "red"),))
    one, two = conversation.answered(model, speech, [asked, kept])
    assert two is kept
    inputs = speech.processor(
        images=asked.open(), text=speech.render(asked.turns, 0), return_tensors="pt",
        add_special_tokens=False,
    )  # fmt: skip
    said = model.model.generate(
        **inputs, max_new_tokens=conversation.ANSWER_TOKENS, do_sample=False
    )[0, inputs["input_ids"].shape[1] :]
    wanted = speech.tokenizer.decode(said, skip_special_tokens=True).strip()
    assert one.turns[0].answer == wanted


def test_what_cannot_be_tuned_is_refused(pruned, llama, pairs_file, text_file, tmp_path):
    with pytest.raises(RunError, match="exists already"):
        tuning.tune(str(pruned), changes(pairs_file), tmp_path, "", Watch())
    with pytest.raises(ModelError, match="no projector"):
        tuning.tune(str(llama), changes(pairs_file), tmp_path / "a", "", Watch())
    for some in ({"pairs": "none"}, {"pair_count": 1}):
        with pytest.raises(CalibrationError, match="too few"):
            tuning.tune(
                str(pruned),
                changes(pairs_file, calibration=str(text_file)) | some,
                tmp_path / "a",
                "",
                Watch(),
            )
    assert not (tmp_path / "a").exists()
