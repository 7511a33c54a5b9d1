"""A run's champion or any model folder, written again."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tiny
import torch

from slimsearch import artefact
from slimsearch.api import exporting, generating
from slimsearch.api.exporting import Choices
from slimsearch.errors import ModelError, PolicyError, ResourceError, RunError, SettingsError
from slimsearch.privacy import import_openvino


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


@pytest.mark.parametrize("content", ["{", "[" * 100_000, None], ids=["cut", "deep", "folder"])
def test_a_record_that_cannot_be_read_is_refused_by_name(llava, tmp_path, content):
    folder = shutil.copytree(llava, tmp_path / "model")
    if content is None:
        (folder / "slimsearch.json").mkdir()
    else:
        (folder / "slimsearch.json").write_text(content)
    with pytest.raises(ModelError, match=r"slimsearch\.json"):
        exporting.export(str(folder), ["hf"], tmp_path / "out")


@pytest.mark.parametrize("form", ["hf", "native"])
def test_what_stood_beside_the_weights_may_not_be_lost(llava, tmp_path, form):
    """Without its chat template a model would be asked in another's words, and nobody told."""
    beside = {file.name for file in llava.iterdir()} - {"model.safetensors"}
    exporting.export(str(llava), [form], tmp_path / "out")
    for name in beside:
        folder = shutil.copytree(tmp_path / "out", tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(ModelError, match=f"There is no .*{name}, which slimsearch.json names"):
            artefact.find(folder)
    exporting.export(str(tmp_path / "out"), ["hf"], tmp_path / "again")
    (tmp_path / "out" / "slimsearch.json").unlink()
    assert artefact.find(tmp_path / "out").folder == tmp_path / "out"


@pytest.mark.parametrize("exports", [None, "onnx", 3, ["onnx"], {"onnx": None}])
def test_a_record_of_no_forms_says_nothing_of_one(llava, tmp_path, exports):
    folder = shutil.copytree(llava, tmp_path / "model")
    (folder / "slimsearch.json").write_text(json.dumps({"exports": exports}))
    assert artefact.find(folder).recorded("onnx") == {}


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


def test_a_model_is_pruned_by_a_policy_first(llava, small, tmp_path):
    policy = tmp_path / "found.toml"
    policy.write_text('name = "found"\nabout = "x"\n[layer_sparsity]\n"blocks.*" = 0.75\n')
    by = replace(small, policy=str(policy))
    record = exporting.export(str(llava), ["hf", "onnx"], tmp_path / "out", pruned_by=by)
    assert record["sparsity"] == pytest.approx(0.75, abs=0.001)
    assert record["policy"]["layer_sparsity"] == {"blocks.0": 0.75, "blocks.1": 0.75}
    assert len(record["matrices"]) == 14
    assert {row["name"] for row in record["table"]} == {"dense", "found sparsegpt"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"out", "found.toml"}


def test_a_run_is_not_pruned_again(small, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").write_bytes(b"")
    with pytest.raises((RunError, SettingsError)):
        exporting.export(str(tmp_path / "run"), ["hf"], tmp_path / "out", pruned_by=small)


def test_an_engine_that_is_not_installed_is_said_in_one_line(llava, tmp_path, monkeypatch):
    monkeypatch.setattr("slimsearch.exporters.openvino.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'slimsearch\[openvino\]'"):
        exporting.export(str(llava), ["openvino"], tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingsError, match=r"pip install 'slimsearch\[onnx\]'"):
        exporting.export(str(llava), ["onnx"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_openvino_finds_full_is_said_in_one_line(llava, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(import_openvino(), "save_model", full)
    with pytest.raises(ResourceError, match=r"out could not be written: basic_ios.*Free space"):
        exporting.export(str(llava), ["openvino"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", 1.5, None, ["float32"]])
def test_a_record_of_a_dtype_that_openvino_has_not_is_refused(llava, tmp_path, dtype):
    exporting.export(str(llava), ["openvino"], tmp_path / "out")
    file = tmp_path / "out" / "slimsearch.json"
    record = json.loads(file.read_text())
    record["exports"]["openvino"]["dtype"] = dtype
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"slimsearch\.json has OpenVINO calculate in .*bfloat16"):
        generating.open(tmp_path / "out", "openvino")


def test_a_dtype_that_is_none(llava, tmp_path):
    with pytest.raises(SettingsError, match="dtype 'int4'"):
        exporting.export(str(llava), ["openvino"], tmp_path / "out", Choices(dtype="int4"))


@pytest.mark.parametrize(
    ("choice", "forms", "others"),
    [
        ({"int8": True}, ["hf"], "deepsparse, native, onnx, openvino"),
        ({"dtype": "bfloat16"}, ["hf", "onnx"], "native, openvino"),
        ({"room": 64}, ["native"], "deepsparse"),
    ],
)
def test_a_choice_that_no_form_has_is_refused(choice, forms, others):
    said = rf"--{next(iter(choice))} says nothing to --to {' --to '.join(forms)}\. .*: {others}\."
    with pytest.raises(SettingsError, match=said):
        exporting.check(Choices(**choice), forms)
    exporting.check(Choices(**choice), [*forms, others.split(", ")[0]])
    exporting.check(Choices(), forms)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_is_held_as_it_is_stored(load, tmp_path, dtype):
    """So that memory stays near the size on disk; what is written is the same numbers in fp32."""
    folder = tiny.llama(tmp_path / "model", dtype=dtype)
    exporting.export(str(folder), ["onnx"], tmp_path / "out")
    graph = onnx.load(str(tmp_path / "out/onnx/decoder_model_merged.onnx")).graph
    held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    wanted = load(folder).linear("blocks.1.gate").weight
    assert np.array_equal(held["blocks.1.gate.weight"].T, wanted.numpy())


@pytest.mark.parametrize("choice", [{"dtype": "bfloat16"}, {"int8": True}])
def test_coarser_numbers_stay_near(llava, pairs_file, tmp_path, choice):
    exporting.export(str(llava), ["openvino", "onnx"], tmp_path / "out", Choices(**choice))
    ids = np.arange(10, 30)[None]
    found = []
    for folder, runtime in ((llava, "torch"), (tmp_path / "out", "openvino"),
                            (tmp_path / "out", "onnxruntime")):  # fmt: skip
        session = generating.open(folder, runtime)[1].session
        session.forget()
        found.append(session.step(session.embed(ids), np.ones_like(ids), np.arange(20)[None]))
    for one in found[1:]:
        assert np.corrcoef(found[0][0], one[0])[0, 1] > 0.99


@pytest.mark.parametrize("form", ["onnx", "openvino", "deepsparse"])
def test_what_a_form_cannot_say_is_refused_before_anything_is_pruned(
    llava, small, tmp_path, form, monkeypatch
):
    """Naming model and policy as they were given, not a folder that has vanished."""
    policy = tmp_path / "cut.toml"
    policy.write_text('name = "cut"\nabout = "x"\n[attention_cut]\n"blocks.1" = 1\n')
    monkeypatch.setattr(exporting.pruning, "prune", None)
    by = replace(small, policy=str(policy))
    told = rf"{llava} cannot.*--to {form} .*{policy}.*cuts attention.*block 1; the forms hf"
    with pytest.raises(PolicyError, match=told):
        exporting.export(str(llava), ["hf", form], tmp_path / "out", pruned_by=by)
    assert {entry.name for entry in tmp_path.iterdir()} == {"cut.toml"}
