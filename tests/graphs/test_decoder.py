"""A decoder as a graph against the same decoder in torch, run by ONNX Runtime."""

import json
import shutil

import numpy as np
import onnx
import pytest
import tiny
import tiny_families
import torch
from graphed import cached, close, empty, engine, reference, run

from slimsearch.errors import ModelError
from slimsearch.graphs import anatomy, decoder, sheet

SHAPES = {
    "plain": (tiny.llama, {}),
    "grouped keys": (tiny.llama, {"kv_heads": 2}),
    "one key head, tied, in a LLaVA": (tiny.llava, {"kv_heads": 1, "tied": True}),
    "bf16 on disk": (tiny.llama, {"dtype": torch.bfloat16, "kv_heads": 2}),
}


@pytest.fixture(scope="module", params=SHAPES)
def folder(request, tmp_path_factory):
    make, choices = SHAPES[request.param]
    return make(tmp_path_factory.mktemp("graph") / "model", **choices)


def test_prompt_and_cache_give_torchs_logits(load, folder, tmp_path):
    vlm = load(folder)
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "d.onnx")
    session = engine(tmp_path / "d.onnx")
    ids = torch.randint(5, tiny.VOCABULARY, (3, 9))
    embeds, wanted = reference(vlm, ids)
    cache, read = empty(parts, 3), 0
    for count in (5, 3, 1):
        here = slice(read, read + count)
        feeds = {
            "inputs_embeds": embeds[:, here],
            "attention_mask": np.ones((3, read + count), np.int64),
            "position_ids": np.tile(np.arange(read, read + count), (3, 1)),
        }
        found = run(session, feeds | cache)
        assert close(found["logits"], wanted[:, here])
        cache, read = cached(found), read + count


def test_padding_on_the_left_changes_nothing(load, folder, tmp_path):
    vlm = load(folder)
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "d.onnx")
    ids = torch.randint(5, tiny.VOCABULARY, (1, 6))
    embeds, wanted = reference(vlm, ids)
    padded = np.concatenate([np.full((1, 2, parts.width), 3, np.float32), embeds], 1)
    found = run(engine(tmp_path / "d.onnx"), {
        "inputs_embeds": padded,
        "attention_mask": np.array([[0, 0, 1, 1, 1, 1, 1, 1]]),
        "position_ids": np.array([[0, 0, 0, 1, 2, 3, 4, 5]]),
        **empty(parts, 1),
    })  # fmt: skip
    assert close(found["logits"][:, 2:], wanted)
    assert np.isfinite(found["logits"]).all()


def test_weights_beside_the_graph_are_the_same_weights(load, folder, tmp_path, monkeypatch):
    parts = anatomy.read(load(folder))
    decoder.build(parts).write(tmp_path / "inside.onnx")
    monkeypatch.setattr(sheet, "INLINE", 0)
    decoder.build(parts).write(tmp_path / "beside.onnx")
    assert (tmp_path / "beside.onnx_data").is_file()
    one, two = (onnx.load(str(tmp_path / name)) for name in ("inside.onnx", "beside.onnx"))
    held = [
        {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        for model in (one, two)
    ]
    assert held[0].keys() == held[1].keys()
    assert all(np.array_equal(held[0][name], held[1][name]) for name in held[0])
    engine(tmp_path / "beside.onnx")


def test_zeros_stay_zeros(load, folder, tmp_path):
    vlm = load(folder)
    vlm.linear("blocks.1.up").weight.data[:, ::2] = 0
    decoder.build(anatomy.read(vlm)).write(tmp_path / "d.onnx")
    held = {t.name: t for t in onnx.load(tmp_path / "d.onnx").graph.initializer}
    weight = onnx.numpy_helper.to_array(held["blocks.1.up.weight"])
    assert np.array_equal(weight.T, vlm.linear("blocks.1.up").weight.float().numpy())
    assert (weight[::2] == 0).all()


@pytest.mark.parametrize(("tokens", "past"), [(6, 0), (1, 8), (4, 8)])
def test_fixed_shapes_give_the_last_logits_and_the_new_keys(load, folder, tmp_path, tokens, past):
    vlm = load(folder)
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "free.onnx")
    decoder.build(parts, decoder.Fixed(tokens, past)).write(tmp_path / "fixed.onnx")
    draw = np.random.default_rng(0)
    feeds = {
        "inputs_embeds": draw.standard_normal((1, tokens, parts.width), np.float32),
        "position_ids": np.arange(past, past + tokens)[None],
    }
    cache = {
        name: draw.standard_normal((1, parts.key_heads, past, parts.head_width), np.float32)
        for name in empty(parts, 1)
    }
    everywhere = {"attention_mask": np.ones((1, past + tokens), np.int64)}
    wanted = run(engine(tmp_path / "free.onnx"), feeds | cache | everywhere)
    unseen = np.triu(np.full((tokens, past + tokens), -1e4, np.float32), past + 1)
    found = run(
        engine(tmp_path / "fixed.onnx"),
        feeds | (cache if past else {}) | {"mask": unseen[None, None]},
    )
    assert close(found["logits"], wanted["logits"][:, -1:])
    for name in cached(wanted):
        name = name.replace("past_key_values", "present")
        assert close(found[name], wanted[name][:, :, past:])


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_large_cache_is_multiplied_by_and_not_copied(load, tmp_path, kv_heads):
    sizes = {"hidden_size": 64, "heads": 4, "kv_heads": kv_heads, "head_dim": 16}
    parts = anatomy.read(load(tiny_families.make("llama", tmp_path / "model", **sizes)))
    decoder.build(parts).write(tmp_path / "free.onnx")
    decoder.build(parts, decoder.Fixed(1, 256)).write(tmp_path / "fixed.onnx")
    graph = onnx.load(tmp_path / "fixed.onnx").graph
    held = {one.name for one in graph.input if one.name.startswith("past_key_values")}
    assert len(held) == 2 * len(parts.blocks)
    readers = [node.op_type for node in graph.node for name in node.input if name in held]
    assert readers == ["MatMul"] * len(held)
    draw = np.random.default_rng(0)
    feeds = {name: draw.standard_normal((1, kv_heads, 256, 16), np.float32) for name in held}
    feeds |= {
        "inputs_embeds": draw.standard_normal((1, 1, parts.width), np.float32),
        "position_ids": np.array([[256]]),
    }
    wanted = run(
        engine(tmp_path / "free.onnx"), feeds | {"attention_mask": np.ones((1, 257), np.int64)}
    )
    mask = np.zeros((1, 1, 1, 257), np.float32)
    found = run(engine(tmp_path / "fixed.onnx"), feeds | {"mask": mask})
    assert close(found["logits"], wanted["logits"])


def test_embeddings(load, folder, tmp_path):
    vlm = load(folder)
    decoder.embedding(anatomy.read(vlm)).write(tmp_path / "e.onnx")
    ids = torch.randint(0, tiny.VOCABULARY, (2, 5))
    found = run(engine(tmp_path / "e.onnx"), {"input_ids": ids.numpy()})
    assert np.array_equal(found["inputs_embeds"], reference(vlm, ids)[0])


@pytest.mark.parametrize(("key", "value", "said"), [
    ("hidden_act", "tanh", "uses 'tanh'"), ("model_type", "rwkv", "is a 'rwkv'"),
])  # fmt: skip
def test_a_decoder_that_is_not_known_is_refused(load, llama, monkeypatch, key, value, said):
    vlm = load(llama)
    monkeypatch.setattr(type(vlm.model.config), "model_type", "llama")
    setattr(vlm.model.config, key, value)
    with pytest.raises(ModelError, match=said):
        anatomy.read(vlm)


ROTARY = {
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
}  # fmt: skip


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_variants(load, llama, tmp_path, kind):
    folder = shutil.copytree(llama, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": kind, "rope_theta": 10000.0, **ROTARY[kind]}
    config["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config))
    vlm = load(folder)
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "d.onnx")
    ids = torch.randint(5, tiny.VOCABULARY, (1, 250))
    embeds, wanted = reference(vlm, ids)
    feeds = {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((1, 250), np.int64),
        "position_ids": np.arange(250)[None],
    }
    found = run(engine(tmp_path / "d.onnx"), feeds | empty(parts, 1))["logits"]
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_frequencies_that_follow_the_length_are_refused(load, llama):
    vlm = load(llama)
    vlm.decoder.rotary_emb.rope_type = "longrope"
    with pytest.raises(ModelError, match="longrope"):
        anatomy.read(vlm)


@pytest.mark.parametrize("kind", ["gelu", "gelu_pytorch_tanh", "relu"])
def test_activations(load, llama, tmp_path, kind):
    folder = shutil.copytree(llama, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": kind}))
    vlm = load(folder)
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "d.onnx")
    embeds, wanted = reference(vlm, torch.randint(5, tiny.VOCABULARY, (1, 7)))
    feeds = {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((1, 7), np.int64),
        "position_ids": np.arange(7)[None],
    }
    assert close(run(engine(tmp_path / "d.onnx"), feeds | empty(parts, 1))["logits"], wanted)
