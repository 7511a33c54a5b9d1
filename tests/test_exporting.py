"""A run's champion or any model folder, written again."""

import shutil

import pytest

from slimsearch import exporting
from slimsearch.errors import ModelError, RunError, SettingsError


def test_any_model_folder_can_be_exported(llava, tmp_path):
    record = exporting.export(str(llava), ["hf"], tmp_path / "out")
    assert record["sparsity"] == 0
    assert record["fingerprint"]["model"]["model.safetensors"]
    for name in ("model.safetensors", "config.json", "tokenizer.json", "processor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (llava / name).read_bytes()


def test_an_export_keeps_what_an_earlier_one_recorded(llava, tmp_path):
    folder = shutil.copytree(llava, tmp_path / "model")
    (folder / "slimsearch.json").write_text('{"base": "x/y"}')
    exporting.export(str(folder), ["hf"], tmp_path / "out")
    assert "x/y" in (tmp_path / "out" / "README.md").read_text()


def test_a_record_that_cannot_be_read_is_refused_by_name(llava, tmp_path):
    folder = shutil.copytree(llava, tmp_path / "model")
    (folder / "slimsearch.json").write_text("{")
    with pytest.raises(ModelError, match=r"slimsearch\.json"):
        exporting.export(str(folder), ["hf"], tmp_path / "out")


def test_unknown_forms_and_sources(llava, tmp_path):
    with pytest.raises(SettingsError, match="no 'gguf' in exporters"):
        exporting.export(str(llava), ["gguf"], tmp_path / "out")
    with pytest.raises(ModelError, match="no model folder"):
        exporting.export(str(tmp_path / "none"), ["hf"], tmp_path / "out")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").write_bytes(b"")
    (tmp_path / "run" / "settings.toml").write_text("")
    with pytest.raises(RunError, match="slimsearch resume"):
        exporting.export(str(tmp_path / "run"), ["hf"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
