"""Settings survive their file, and what cannot be is refused by name."""

import tomllib
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimsearch import settings
from slimsearch.errors import SettingsError
from slimsearch.settings import ENGINES, Settings, change, checked, read, write

VALUES = {
    str: st.text(st.characters(codec="utf-8"), max_size=30),
    int: st.integers(1, 1000),
    float: st.floats(0.01, 0.99),
    bool: st.booleans(),
}
CHOICES = {
    "latency_engine": st.sampled_from(ENGINES),
    "budget": st.sampled_from(["weights", "flops", "latency"]),
    "latency_phase": st.sampled_from(["prefill", "decode"]),
    "projector_lessons": st.sampled_from(["dense", "answers"]),
    "attention": st.sampled_from(["auto", "eager", "sdpa"]),
    "polish": st.sampled_from(["auto", "none", "projector", "gains", "all"]),
    "projector_start": st.sampled_from(["old", "fresh"]),
    "store_in": st.sampled_from(["auto", "gpu", "memory", "disk"]),
    "tokens": st.sampled_from(["text", "prompt", "both"]),
    "dtype": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
}
some_settings = st.builds(
    Settings, **{f.name: CHOICES.get(f.name, VALUES[type(f.default)]) for f in fields(Settings)}
)


@given(chosen=some_settings)
def test_settings_come_back_from_their_file(tmp_path_factory, chosen):
    file = tmp_path_factory.mktemp("settings") / "settings.toml"
    file.write_text(write(chosen), "utf-8")
    assert read(file) == chosen


def test_every_key_is_written_with_what_it_means():
    text = write(Settings())
    assert tomllib.loads(text) == asdict(Settings())
    for item in fields(Settings):
        assert f"# {item.metadata['about']}\n{item.name} = " in text


def test_defaults_are_allowed():
    assert checked(Settings()) == Settings()


def test_a_missing_key_keeps_its_default(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("rounds = 3\n")
    assert read(file) == replace(Settings(), rounds=3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ratoi = 0.5", ["unknown key 'ratoi'", "Did you mean 'ratio'"]),
        ("[table]\nratio = 0.5", ["unknown key 'table'"]),
        ("ratio = '0.5'", ["'ratio' must be a number"]),
        ("rounds = 2.5", ["'rounds' must be a whole number"]),
        ("rounds = true", ["'rounds' must be a whole number"]),
        ("json = 1", ["'json' must be true or false"]),
        ("model = 1", ["'model' must be a string"]),
        ("ratio = ", ["no readable TOML"]),
    ],
)
def test_a_bad_file_is_refused_by_file_and_key(tmp_path, content, words):
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match="There is no settings file"):
        read(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"model = '\xff'")
    with pytest.raises(SettingsError, match="no readable TOML"):
        read(tmp_path / "bytes.toml")
    with pytest.raises(SettingsError):
        read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("ratio", 0.0), ("ratio", 1.0), ("ratio", -0.1), ("ratio", float("nan")), ("rounds", 0),
     ("candidates", 0), ("survivors", 0), ("finalists", -1), ("segments", -1), ("eta", -0.1),
     ("eta", -2.0), ("drift_ridge", -0.5), ("ray_gpus", -0.5),
     ("eta", float("nan")), ("eta", float("inf")), ("damping", -1.0), ("neighbours", -1),
     ("projector_steps", -1), ("projector_rate", 2.0), ("projector_rate", float("nan")),
     ("batch_tokens", 0), ("seed", -1), ("tokens", "all"), ("projector_lessons", "none"),
     ("polish", "much"), ("dtype", "float64"), ("budget", "money")],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(key, value):
    with pytest.raises(SettingsError, match=key):
        checked(replace(Settings(), **{key: value}))


@pytest.mark.parametrize("line", ["rounds = 0", "ratio = 1.5", "dtype = 'int3'"])
def test_values_that_cannot_be_are_refused_by_their_file(tmp_path, line):
    file = tmp_path / "mine.toml"
    file.write_text(line)
    with pytest.raises(SettingsError, match=rf"^{file}: {line.split()[0]} = .* cannot be"):
        read(file)


def test_a_whole_number_will_do_for_a_number():
    found = change(Settings(), {"eta": 2}, "here")
    assert found.eta == 2.0
    assert isinstance(found.eta, float)


def test_change_leaves_the_given_settings_alone():
    given = Settings()
    change(given, {"rounds": 3}, "here")
    assert given == Settings()


def test_the_documented_default_run():
    assert settings.Settings().model == settings.DEMO
    assert (Settings().rounds, Settings().candidates, Settings().ratio) == (10, 16, 0.5)
