"""What a run reads is checked before a model is loaded, and known again when it is resumed."""

from dataclasses import fields, replace

import pytest
import tiny

from slimsearch.api import inputs
from slimsearch.errors import CalibrationError, InputError, SettingsError
from slimsearch.settings import WHERE, Settings


def test_all_is_gathered(small):
    given = inputs.gather(small)
    assert given.segments.shape == (4, 24)
    assert given.held_segments.shape[1] == 24
    assert len(given.material.pairs) == 14
    assert given.speech.processor is not None
    assert given.policy.name == "per_matrix"


def test_segments_are_cut_from_the_texts_tokens(small, text_file):
    given = inputs.gather(small)
    stream = tiny.tokenizer()(given.material.text)["input_ids"]
    wanted = {tuple(stream[n : n + 24]) for n in range(len(stream) - 23)}
    assert all(tuple(row) in wanted for row in given.segments.tolist())
    held = tiny.tokenizer()(given.material.held_text)["input_ids"]
    wanted = {tuple(held[n : n + 24]) for n in range(len(held) - 23)}
    assert all(tuple(row) in wanted for row in given.held_segments.tolist())


def test_the_seed_draws_the_segments(small):
    one, two, three = (inputs.gather(replace(small, seed=n)).segments for n in (0, 0, 1))
    assert one.tolist() == two.tolist() != three.tolist()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"solver": "sparsgpt"}, SettingsError, "sparsegpt"),
        ({"strategy": "genetik"}, SettingsError, "genetic"),
        ({"executor": "remote"}, SettingsError, "executors"),
        ({"objective": "txt"}, SettingsError, "unknown term"),
        ({"policy": "nothing"}, InputError, "policies"),
        ({"levels": "1.5"}, InputError, "levels"),
        ({"device": "tpu"}, InputError, "tpu"),
        ({"store_in": "gpu"}, SettingsError, "memory or disk"),
        ({"solver": "wanda", "reference_count": True}, SettingsError, "wanda has no such count"),
        ({"segment_length": 5000}, CalibrationError, "5000"),
        ({"calibration": "missing.txt"}, CalibrationError, "missing.txt"),
    ],
)
def test_what_is_wrong_is_refused_without_loading_a_model(small, monkeypatch, change, error, words):
    monkeypatch.setattr(
        "slimsearch.model.loading.load", lambda *_: pytest.fail("a model was loaded")
    )
    with pytest.raises(error, match=words):
        inputs.gather(replace(small, **change))


def test_an_objective_that_needs_pairs_is_refused_without_any(small):
    with pytest.raises(SettingsError, match="answer_loss"):
        inputs.gather(replace(small, objective="answer_loss", pairs="none"))


def test_the_fingerprint_repeats_itself(small):
    one, two = (inputs.gather(small).fingerprint for _ in range(2))
    assert one == two
    assert one["settings"]["seed"] == 0
    assert {"torch", "transformers", "python", "slimsearch"} == set(one["versions"])


@pytest.mark.parametrize("key", ["out", "json", "dry_run"])
def test_what_changes_no_result_is_not_in_the_fingerprint(small, key):
    value = "elsewhere" if key == "out" else True
    other = replace(small, **{key: value})
    one, two = (inputs.gather(chosen).fingerprint for chosen in (small, other))
    assert one == two


def test_every_other_setting_is_in_the_fingerprint(small):
    found = inputs.gather(small).fingerprint["settings"]
    left_out = {item.name for item in fields(Settings)} - set(found)
    assert left_out == {
        "out", "stores", "store_in", "device_map", "max_memory", "json", "dry_run", "model",
        "policy", "calibration", "pairs", *WHERE,
    }  # fmt: skip
