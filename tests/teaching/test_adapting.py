"""LoRA beside the decoder's matrices: what is trained is what is merged, and zeros stay zeros."""

import sys
from dataclasses import replace

import pytest
import tiny
import tiny_families
import torch
from safetensors.torch import load_file

from slimsearch.api import pruning, tuning
from slimsearch.calibration import Pair, Turn
from slimsearch.errors import SettingsError
from slimsearch.model import checkpoint, conversation, loading
from slimsearch.routes.route import PICTURES, Route, Step, plain
from slimsearch.searching.watch import Watch
from slimsearch.teaching import adapting

pytest.importorskip("peft")
CUT = Route((Step(window=0), Step(window=0, skip_block=PICTURES)))


@pytest.fixture(params=["llava", "opt"])
def held(request, tmp_path):
    """A model half of whose weights are zero in its first block, and a batch for it."""
    folder = tiny_families.make(request.param, tmp_path / "model")
    vlm = loading.load(checkpoint.find(str(folder)), "cpu", "float32")
    speech = conversation.load(vlm.checkpoint)
    for matrix in vlm.matrices[: len(vlm.matrices) // 2]:
        weight = vlm.linear(matrix.name).weight
        weight.data[torch.rand_like(weight) < 0.5] = 0
    if not vlm.sees:
        ids = torch.arange(24).view(2, 12) % 20 + 5
        return vlm, conversation.text_batches(ids, vlm.device, 100)[0]
    tiny.picture(1).save(tmp_path / "1.png")
    pair = Pair("1", tmp_path / "1.png", (Turn("What colour is it?", "red and green"),))
    return vlm, conversation.pair_batches(vlm, speech, [pair], 400)[0]


@pytest.mark.parametrize("route", [None, CUT, Route((Step(skip_ffn=frozenset({1})), Step()))])
def test_the_merged_model_is_the_one_that_was_trained(held, route):
    """Against matrices whose deltas are computed here, zeros left out."""
    vlm, batch = held
    vlm.reroute("test", route or plain(2))
    dense = {m.name: vlm.linear(m.name).weight.detach().clone() for m in vlm.matrices}
    layers = {m.name: vlm.linear(m.name) for m in vlm.matrices}
    before = vlm.hidden(vlm.given(batch))
    draw = torch.Generator().manual_seed(3)
    with adapting.adapted(vlm, 2, 0) as names:
        assert len(names) == 2 * len(vlm.matrices)
        torch.testing.assert_close(vlm.hidden(vlm.given(batch)), before)  # B begins as zero
        sides = {
            name: torch.randn(weight.shape, generator=draw) * 0.05
            for name, weight in vlm.weights(names).items()
        }
        told = vlm.hidden(vlm.given(batch), sides)
        vlm.set_weights(sides)
        trained = vlm.hidden(vlm.given(batch))
    torch.testing.assert_close(told, trained)
    torch.testing.assert_close(vlm.hidden(vlm.given(batch)), trained, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(trained, before, atol=1e-3)
    for name, was in dense.items():
        delta = 2 * sides[f"lora_B.{name}"] @ sides[f"lora_A.{name}"]
        assert vlm.linear(name) is layers[name]
        torch.testing.assert_close(vlm.linear(name).weight, was + delta * (was != 0))
        assert torch.equal(vlm.linear(name).weight == 0, was == 0)


def test_gradients_reach_every_adapter(held):
    vlm, batch = held
    with adapting.adapted(vlm, 2, 0) as names:
        sides = {name: weight.requires_grad_() for name, weight in vlm.weights(names).items()}
        vlm.loss(batch, sides).backward()
        assert all(bool(sides[name].grad.any()) for name in names if "lora_B" in name)


@pytest.mark.parametrize("policy", ["attention_cut", "layer_cut"])
def test_tune_with_the_cut_in_place(policy, llava, pairs_file, text_file, tmp_path):
    file = tmp_path / "cut.toml"
    lines = '"blocks.*" = 1' if policy == "attention_cut" else "last = 1"
    sparse = '[layer_sparsity]\n"blocks.0" = 0.5\n'
    file.write_text(f'name = "cut"\nabout = "A cut."\n{sparse}[{policy}]\n{lines}\n')
    settings = replace(tiny.settings(llava, pairs_file, text_file), policy=str(file))
    pruned = pruning.prune(settings, tmp_path / "pruned", Watch()).folder
    changes = {
        "pairs": str(pairs_file), "pair_count": 14, "final_steps": 30, "lora_rank": 2,
        "lora_rate": 5e-3, "projector_lessons": "answers",
    }  # fmt: skip
    done = tuning.tune(str(pruned), changes, tmp_path / "tuned", "", Watch())
    assert done.step.kept
    assert done.table[1].figures["answer_loss"] < done.table[0].figures["answer_loss"]
    before, after = (load_file(folder / "model.safetensors") for folder in (pruned, done.folder))
    assert set(before) == set(after)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    decoder = {key for key in before if "language_model" in key and "proj." in key}
    assert decoder <= moved
    assert moved <= decoder | {key for key in before if "multi_modal_projector" in key}
    assert all(torch.equal(before[key] == 0, after[key] == 0) for key in decoder)
    found = loading.load(checkpoint.find(str(done.folder)), "cpu", "float32")
    assert found.route == loading.load(checkpoint.find(str(pruned)), "cpu", "float32").route


def test_a_rank_without_peft_or_with_moving_blocks_is_refused(llava, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="device_map"):
        tuning.tune(
            str(llava), {"lora_rank": 2, "device_map": "auto"}, tmp_path / "out", "", Watch()
        )
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SettingsError, match=r"slimsearch\[lora\]"):
        tuning.tune(str(llava), {"lora_rank": 2}, tmp_path / "out", "", Watch())
