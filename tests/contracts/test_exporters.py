"""Every file in exporters/ against the contract of an exporter; hf against its source folder."""

import json

import numpy as np
import onnx
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from slimsearch import artefact
from slimsearch.contracts import Exporter
from slimsearch.errors import RunError
from slimsearch.plugins import about, find, make, names
from slimsearch.privacy import import_openvino

EXPORTERS = names("exporters")
FACTS = {"base": "x/y", "sparsity": 0.25}  # the least that a folder says of itself
SHAPES = {
    "new": {},
    "as_1.5": {"dtype": torch.bfloat16, "shards": 3, "old_names": True, "kv_heads": 2},
    "tied": {"tied": True, "dtype": torch.float16},
}


@pytest.fixture(scope="module", params=SHAPES)
def source(request, tmp_path_factory):
    return tiny.llava(tmp_path_factory.mktemp("source") / "model", **SHAPES[request.param])


def written(model, folder, form: str = "hf", facts=FACTS):
    return artefact.write(model, folder, facts, {form: find("exporters", form)()})


def tensors(folder) -> dict[str, dict[str, torch.Tensor]]:
    return {file.name: load_file(file) for file in sorted(folder.glob("*.safetensors"))}


def same_bytes(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.dtype == two.dtype and torch.equal(
        one.contiguous().view(torch.uint8), two.contiguous().view(torch.uint8)
    )


def test_all_are_found():
    assert set(EXPORTERS) >= {"hf"}
    assert all(about("exporters", name) for name in EXPORTERS)
    assert all(issubclass(find("exporters", name), Exporter) for name in EXPORTERS)


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_folder_that_exists_is_refused(load, llava, tmp_path, name):
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match="exists already"):
        written(load(llava), tmp_path / "taken", name)
    assert list((tmp_path / "taken").iterdir()) == []


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_whole_folder_or_nothing(load, llava, tmp_path, name, monkeypatch):
    """What goes wrong in the middle leaves nothing behind."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    model = load(llava)
    with pytest.raises(Exception, match="No space left"):
        written(model, tmp_path / "out" / "model", name)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_untouched_model_comes_out_byte_for_byte(load, source, tmp_path):
    written(load(source), tmp_path / "out")
    before, after = tensors(source), tensors(tmp_path / "out")
    assert {name: set(shard) for name, shard in before.items()} == {
        name: set(shard) for name, shard in after.items()}  # fmt: skip
    for name, shard in before.items():
        assert all(same_bytes(weight, after[name][key]) for key, weight in shard.items())
    for file in source.iterdir():
        if file.suffix in (".json", ".jinja"):
            assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_what_changed_is_changed_and_nothing_else(load, source, tmp_path):
    model = load(source)
    model.linear("blocks.1.up").weight.data[::2] = 0
    bias, gain = "linear_1.bias", "gain.layers.1.input_layernorm.weight"
    model.set_weights({name: model.weights()[name].fill_(0.5) for name in (bias, gain)})
    written(model, tmp_path / "out")
    before, after = tensors(source), tensors(tmp_path / "out")
    changed = {
        key
        for name, shard in before.items()
        for key, weight in shard.items()
        if not same_bytes(weight, after[name][key])
    }
    assert {key.split(".layers.")[-1].split("projector.")[-1] for key in changed} == {
        "1.mlp.up_proj.weight", "1.input_layernorm.weight", "linear_1.bias"}  # fmt: skip
    (up,) = [w for shard in after.values() for key, w in shard.items() if key in changed
             and "up_proj" in key]  # fmt: skip
    assert torch.equal(up == 0, model.linear("blocks.1.up").weight == 0)
    assert int((up[::2] == 0).sum()) == up[::2].numel()


def test_it_loads_with_plain_from_pretrained(load, source, tmp_path):
    model = load(source)
    model.linear("blocks.0.q").weight.data[:, ::3] = 0
    facts = {
        **FACTS,
        "policy": {"layer_sparsity": {"blocks.0": 0.5}},
        "table": [{"name": "dense", "sparsity": 0.0, "figures": {"perplexity": 9.0}}],
    }
    written(model, tmp_path / "out", facts=facts)
    again, info = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(again.get_decoder().layers[0].self_attn.q_proj.weight,
                       model.linear("blocks.0.q").weight)  # fmt: skip
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    inputs = processor(images=tiny.picture(1), text="<image> red", return_tensors="pt")
    with torch.no_grad():
        one, two = model.model(**inputs).logits, again(**inputs).logits
    assert torch.equal(one, two)
    recorded = json.loads((tmp_path / "out" / "slimsearch.json").read_text())
    assert recorded.pop("exports").keys() == {"hf"}
    assert {"config.json", "tokenizer.json"} < {*recorded.pop("beside")}
    assert recorded == facts
    card = (tmp_path / "out" / "README.md").read_text()
    assert "x/y" in card
    assert "25.0%" in card
    assert "| blocks.0 | 0.5 |" in card
    assert "| dense | 0.000 | 9 | - | - |" in card


def test_a_text_only_model_too(load, llama, tmp_path):
    model = load(llama)
    model.linear("blocks.1.down").weight.data[0] = 0
    written(model, tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(weight, again.state_dict()[key])
               for key, weight in model.model.state_dict().items())  # fmt: skip


def test_onnx_is_laid_out_as_its_users_expect(load, llava, tmp_path):
    record = written(load(llava), tmp_path / "out", "onnx")
    assert sorted(file.name for file in (tmp_path / "out" / "onnx").iterdir()) == [
        "decoder_model_merged.onnx", "embed_tokens.onnx", "vision_encoder.onnx"]  # fmt: skip
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja",
                 "preprocessor_config.json", "processor_config.json"):  # fmt: skip
        assert (tmp_path / "out" / name).read_bytes() == (llava / name).read_bytes()
    assert not list((tmp_path / "out").glob("*.safetensors*"))
    assert record["exports"]["onnx"]["int8"] is False
    decoder = onnx.load(str(tmp_path / "out" / "onnx" / "decoder_model_merged.onnx"))
    cache = [f"{n}.{kind}" for n in range(2) for kind in ("key", "value")]
    assert [one.name for one in decoder.graph.input] == [
        "inputs_embeds", "attention_mask", "position_ids",
        *(f"past_key_values.{one}" for one in cache)]  # fmt: skip
    assert [one.name for one in decoder.graph.output] == [
        "logits", *(f"present.{one}" for one in cache)]  # fmt: skip


def constants(folder, form: str) -> dict[str, np.ndarray]:
    """The decoder's weights by name, as they stand in the export."""
    if form == "openvino":
        model = (
            import_openvino().Core().read_model(folder / "openvino" / "decoder_model_merged.xml")
        )
        return {
            one.get_friendly_name(): one.data
            for one in model.get_ops()
            if one.get_type_name() == "Constant"
        }
    held = onnx.load(str(folder / "onnx" / "decoder_model_merged.onnx")).graph.initializer
    return {one.name: onnx.numpy_helper.to_array(one) for one in held}


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("int8", [False, True])
def test_zeros_survive(load, tmp_path, form, int8):
    """Of every matrix, in the weights as the engine gets them."""
    folder = tiny.llama(tmp_path / "model")
    model = load(folder)
    for role in ("q", "k", "v"):
        model.linear(f"blocks.0.{role}").weight.data[:, ::2] = 0
    for role in ("gate", "up"):
        model.linear(f"blocks.1.{role}").weight.data[:, 1::2] = 0
    artefact.write(model, tmp_path / "out", FACTS, {form: make("exporters", form, {"int8": int8})})
    found = constants(tmp_path / "out", form)
    for matrix in model.matrices:
        name = f"{matrix.name}.weight_int8" if int8 else f"{matrix.name}.weight"
        zeros = (model.linear(matrix.name).weight == 0).numpy()
        assert (found[name].T[zeros] == 0).all()
        assert found[name].dtype == (np.int8 if int8 else np.float32)


def test_several_forms_share_a_folder(load, llava, tmp_path):
    forms = {name: find("exporters", name)() for name in ("hf", "onnx", "openvino")}
    record = artefact.write(load(llava), tmp_path / "out", FACTS, forms)
    assert set(record["exports"]) == {"hf", "onnx", "openvino"}
    assert {entry.name for entry in (tmp_path / "out").iterdir() if entry.is_dir()} == {
        "onnx", "openvino"}  # fmt: skip
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**onnx**" in card
