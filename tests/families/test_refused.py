"""What is not known is refused by name, before any weight is read, and says how to go on."""

import json

import pytest
import tiny_families
import torch
import transformers

from slimsearch.api import exporting
from slimsearch.errors import ModelError
from slimsearch.model import checkpoint, loading

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip


def opened(folder):
    return loading.load(checkpoint.find(str(folder)), "cpu", "auto")


def changed(folder, **facts):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Mixtral", "mixtral"), ("Qwen2Moe", "qwen2_moe"), ("Qwen3Moe", "qwen3_moe"),
     ("Olmoe", "olmoe")],
)  # fmt: skip
def test_a_decoder_that_mixes_experts_is_refused_by_name(tmp_path, name, kind):
    more = {"moe_intermediate_size": 16} if "Qwen" in name else {}
    config = getattr(transformers, f"{name}Config")(**SMALL, **more)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"'{kind}', mixes experts.*give a dense model"):
        opened(tmp_path)


def test_so_is_one_that_hides_in_a_model_that_sees(tmp_path):
    folder = tiny_families.make("llava", tmp_path / "model")
    inside = json.loads((folder / "config.json").read_text())["text_config"]
    changed(folder, text_config={**inside, "model_type": "mixtral"})
    with pytest.raises(ModelError, match="'mixtral', mixes experts"):
        opened(folder)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("dots1", "'dots1', mixes experts"), ("deepseek_vl", r"Looked for .*/deepseek_vl\.py")],
)
def test_experts_are_known_by_the_name_too_and_nothing_else_is(tmp_path, kind, reason):
    folder = changed(tiny_families.make("llama", tmp_path / "model"), model_type=kind)
    with pytest.raises(ModelError, match=reason):
        loading.architecture_of(checkpoint.find(str(folder)))


def test_an_unknown_family_is_told_what_was_looked_for_and_how_to_add_it(tmp_path):
    folder = changed(tiny_families.make("llama", tmp_path / "model"), model_type="gpt2")
    with pytest.raises(ModelError) as caught:
        opened(folder)
    said = str(caught.value)
    for part in (str(folder), "'gpt2'", "slimsearch/architectures/gpt2.py", "`stages`",
                 "contracts.Architecture", "slimsearch.architectures", "qwen3_vl"):  # fmt: skip
        assert part in said


def test_an_unknown_decoder_inside_is_named(tmp_path):
    folder = tiny_families.make("llava", tmp_path / "model")
    inside = json.loads((folder / "config.json").read_text())["text_config"]
    changed(folder, text_config={**inside, "model_type": "gpt2"})
    with pytest.raises(ModelError, match=r"has inside a 'gpt2'.*architectures/gpt2\.py"):
        opened(folder)


@pytest.mark.parametrize(
    ("family", "form", "reason"),
    [("llava_next", "onnx", "more than pixels of one size"),
     ("qwen3_vl", "onnx", "is a 'qwen3_vl_text'"), ("mistral", "native", "this one has windows")],
)  # fmt: skip
def test_what_is_not_written_leaves_nothing_behind(tmp_path, family, form, reason):
    folder = tiny_families.make(family, tmp_path / "model")
    with pytest.raises(ModelError, match=reason):
        exporting.export(str(folder), [form], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_numbers_are_kept_short(tmp_path, dtype):
    model = opened(tiny_families.make("qwen3_vl", tmp_path / "model", dtype=dtype))
    assert model.disk_dtype == dtype
