"""Narrowed models: the dense model with those heads and channels masked, and plain folders."""

from dataclasses import replace

import pytest
import tiny
import tiny_families
import torch
import transformers

from slimsearch.api import narrowing
from slimsearch.errors import ModelError
from slimsearch.model import checkpoint, conversation, loading
from slimsearch.searching.watch import Watch
from slimsearch.surgery import groups

MADE = {
    "llama": {"heads": 6, "kv_heads": 3}, "llama, tied": {"heads": 4, "kv_heads": 4, "tied": True},
    "mistral": {"heads": 4, "kv_heads": 2}, "qwen2": {"heads": 6, "kv_heads": 2},
    "qwen3": {"heads": 4, "kv_heads": 4}, "llava": {"heads": 6, "kv_heads": 3},
}  # fmt: skip
IDS = torch.arange(20, 34)[None]


def load(folder):
    return loading.load(checkpoint.find(str(folder)), "cpu", "float32")


@pytest.mark.parametrize("made", MADE)
def test_a_narrowed_model_is_the_dense_one_masked(made, tmp_path):
    folder = tiny_families.make(made.partition(",")[0], tmp_path / "model", **MADE[made])
    masked, small = load(folder), load(folder)
    texts = conversation.text_batches(torch.arange(10, 90).view(4, 20), small.device, 4000)
    worth = groups.worth(small, list(texts))
    assert not any(weight.requires_grad for weight in small.model.parameters())
    kept = groups.choose(small, worth, 0.5)
    text = masked.model.config.get_text_config()
    for block in range(len(masked.blocks)):
        width = masked.linear(f"blocks.{block}.o").weight.shape[1] // text.num_key_value_heads
        heads = torch.ones(text.num_key_value_heads, dtype=torch.bool)
        heads[kept.heads[block]] = False
        channels = torch.ones(text.intermediate_size, dtype=torch.bool)
        channels[kept.channels[block]] = False
        masked.linear(f"blocks.{block}.o").weight[:, heads.repeat_interleave(width)] = 0
        masked.linear(f"blocks.{block}.down").weight[:, channels] = 0
    groups.narrow(small, kept)
    small.model.save_pretrained(tmp_path / "small")
    with torch.no_grad():  # in fp32 sums of other lengths round otherwise
        wanted, found = (some.model.double()(IDS).logits for some in (masked, small))
    assert (found - wanted).abs().max() < 1e-5
    kind = transformers.AutoModelForImageTextToText if small.sees else (
        transformers.AutoModelForCausalLM)  # fmt: skip
    plain = kind.from_pretrained(tmp_path / "small", dtype=torch.float64).eval()
    with torch.no_grad():
        assert (plain(IDS).logits - wanted).abs().max() < 1e-5
    again = plain.config.get_text_config()
    assert again.num_attention_heads % again.num_key_value_heads == 0
    assert again.intermediate_size == 20


def test_what_is_worth_most_by_first_order_stays(tmp_path):
    """Against |w g| summed by hand over one batch's gradient."""
    vlm = load(tiny.llama(tmp_path / "model", heads=4, kv_heads=2))
    (batch,) = conversation.text_batches(torch.arange(10, 34)[None], vlm.device, 4000)
    found = groups.worth(vlm, [batch])
    kept = groups.choose(vlm, found, 0.5)
    block = vlm.blocks[1]
    weights = {"gate": block.mlp.gate_proj, "up": block.mlp.up_proj, "down": block.mlp.down_proj}
    for layer in weights.values():
        layer.weight.requires_grad_(True)
    vlm.model(batch.ids, labels=batch.ids).loss.backward()
    power = {role: (layer.weight * layer.weight.grad).abs() for role, layer in weights.items()}
    by_hand = power["gate"].sum(1) + power["up"].sum(1) + power["down"].sum(0)
    assert set(kept.channels[1].tolist()) == set(by_hand.topk(24).indices.tolist())


def test_heads_that_cannot_go_are_refused(tmp_path):
    for family in ("opt", "phi3"):
        vlm = load(tiny_families.make(family, tmp_path / family))
        with pytest.raises(ModelError, match="cannot go"):
            groups.check(vlm)


def test_a_folder_is_written_that_plain_transformers_generates_from(tmp_path):
    chosen = tiny.settings(
        tiny.llava(tmp_path / "model", kv_heads=2, tied=True), tiny.pairs(tmp_path / "pairs"),
        tiny.text(tmp_path / "text.txt"),
    )  # fmt: skip
    done = narrowing.narrow(replace(chosen, policy="uniform"), tmp_path / "small", Watch())
    assert done.removed == pytest.approx(0.5)
    assert [row.name for row in done.table] == ["dense", "narrowed"]
    model = transformers.AutoModelForImageTextToText.from_pretrained(done.folder)
    said = model.generate(IDS, max_new_tokens=4, do_sample=False)
    assert said.shape[1] > IDS.shape[1]
    assert load(done.folder).matrices[0].rows == 16


def test_as_many_heads_stay_as_transformers_loads(tmp_path):
    """LLaMA's configuration wants heads that divide the width: 5 do not divide 32, 4 do."""
    folder = tiny.llava(tmp_path / "model", heads=8, kv_heads=8)
    chosen = replace(
        tiny.settings(folder, tiny.pairs(tmp_path / "pairs"), tiny.text(tmp_path / "text.txt")),
        policy="uniform", ratio=0.4,
    )  # fmt: skip
    notes = tiny.Notes()
    done = narrowing.narrow(chosen, tmp_path / "small", notes)
    plain = transformers.AutoModelForImageTextToText.from_pretrained(done.folder).eval()
    assert plain.config.get_text_config().num_attention_heads == 4
    assert plain.config.get_text_config().intermediate_size == 34  # where 29 would have stayed
    assert done.removed == pytest.approx(0.4, abs=0.015)
    said = "4 of 8 heads of keys stay in each block where --ratio 0.4 would leave 5"
    assert any(note.startswith(said) for note in notes.notes)


def test_heads_that_no_family_counts_by_the_width_stay_as_asked(tmp_path):
    vlm = load(tiny_families.make("qwen2", tmp_path / "model", heads=8, kv_heads=8))
    assert groups.heads_left(vlm, 0.4) == (5, 5)
