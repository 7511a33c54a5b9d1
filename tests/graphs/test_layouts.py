"""Every kind of decoder as a graph, of free and of fixed shapes, against the same one in torch."""

import numpy as np
import pytest
import tiny_families
import torch
from graphed import cached, close, empty, engine, reference, run

from slimsearch.errors import ModelError
from slimsearch.graphs import anatomy, decoder, masks
from slimsearch.routes.route import EVERY, Route, Step

GROWING = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8,
    "llama_4_scaling_beta": 0.3,
}  # fmt: skip
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
KINDS = {
    "mistral": {},
    "qwen2": {},
    "qwen3": {"attention_bias": True},
    "gemma": {"tied": True},
    "gemma2": {},
    "gemma3_text": {"tied": True},
    "ministral3": {"rope_parameters": GROWING},
    "opt": {},
    "phi3": {"sliding_window": 7, "rope_parameters": PARTIAL},
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("layout") / "model"
    heads, kv_heads = ((3, 1), (4, 2))[list(KINDS).index(request.param) % 2]
    return tiny_families.make(
        request.param, place, heads=heads, kv_heads=kv_heads, **KINDS[request.param]
    )


@torch.no_grad()
def test_prompt_and_cache_give_torchs_logits(load, folder, tmp_path):
    vlm = load(folder)
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "d.onnx")
    decoder.embedding(parts).write(tmp_path / "e.onnx")
    ids = torch.randint(5, 300, (2, 26))
    embeds, wanted = reference(vlm, ids)
    found = run(engine(tmp_path / "e.onnx"), {"input_ids": ids.numpy()})["inputs_embeds"]
    np.testing.assert_allclose(found, embeds, rtol=1e-6)
    session, cache, read = engine(tmp_path / "d.onnx"), empty(parts, 2), 0
    for count in (12, 1, 12, 1):
        here = slice(read, read + count)
        feeds = {
            "inputs_embeds": embeds[:, here],
            "attention_mask": np.ones((2, read + count), np.int64),
            "position_ids": np.tile(np.arange(read, read + count), (2, 1)),
        }
        made = run(session, feeds | cache)
        assert close(made["logits"], wanted[:, here])
        cache, read = cached(made), read + count


@torch.no_grad()
def test_fixed_shapes_give_torchs_last_logits(load, folder, tmp_path):
    """A prompt of 15 behind 3 places of padding, and then one token in a cache with room left."""
    vlm = load(folder)
    parts, blank, room = anatomy.read(vlm), 3, 20
    embeds, wanted = reference(vlm, torch.randint(5, 300, (1, 16)))
    for name, fixed in (("p", decoder.Fixed(18, 0)), ("d", decoder.Fixed(1, room))):
        decoder.build(parts, fixed).write(tmp_path / f"{name}.onnx")
    prompt = run(engine(tmp_path / "p.onnx"), {
        "inputs_embeds": np.pad(embeds[:, :15], ((0, 0), (blank, 0), (0, 0))),
        "position_ids": np.pad(np.arange(15), (blank, 0))[None],
        **masks.arrays(decoder.Fixed(18, 0), parts.windows, blank),
    })  # fmt: skip
    assert close(prompt["logits"][0], wanted[:, 14])
    held = {
        name: np.pad(value[:, :, blank:], ((0, 0), (0, 0), (room - 15, 0), (0, 0)))
        for name, value in cached(prompt).items()
    }
    token = run(engine(tmp_path / "d.onnx"), {
        "inputs_embeds": embeds[:, 15:],
        "position_ids": np.array([[15]]),
        **masks.arrays(decoder.Fixed(1, room), parts.windows, room - 15),
        **held,
    })  # fmt: skip
    assert close(token["logits"][0], wanted[:, 15])


BARE = {"enable_bias": False, "layer_norm_elementwise_affine": False}


@pytest.mark.parametrize("choices", [{"do_layer_norm_before": False, "narrow": 12}, BARE])
@torch.no_grad()
def test_opt_with_norms_behind_and_projections_around(load, tmp_path, monkeypatch, choices):
    made = tiny_families._opt
    monkeypatch.setitem(tiny_families.TEXT, "opt", lambda text: made(text, **choices))
    vlm = load(tiny_families.make("opt", tmp_path / "model", heads=2))
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "d.onnx")
    embeds, wanted = reference(vlm, torch.randint(5, 300, (1, 9)))
    feeds = {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((1, 9), np.int64),
        "position_ids": np.arange(9)[None],
    }
    found = run(engine(tmp_path / "d.onnx"), feeds | empty(parts, 1))["logits"]
    assert close(found, wanted)


NOTHING = Step(skip_attention=EVERY, skip_ffn=EVERY)


@pytest.mark.parametrize("step", [Step(skip_attention=EVERY), Step(skip_ffn=EVERY), NOTHING])
@torch.no_grad()
def test_norms_behind_a_half_stay_where_it_is_skipped(load, tmp_path, monkeypatch, step):
    """As where the half's matrices are zeros, which is how such a folder is written."""
    made = tiny_families._opt
    monkeypatch.setitem(
        tiny_families.TEXT, "opt", lambda text: made(text, do_layer_norm_before=False)
    )
    vlm = load(tiny_families.make("opt", tmp_path / "model", heads=2))
    for block in vlm.blocks:
        block.self_attn_layer_norm.weight.uniform_(0.5, 2)
        block.final_layer_norm.bias.uniform_(-1, 1)
    vlm.reroute("test", Route((step, Step())))
    parts = anatomy.read(vlm)
    decoder.build(parts).write(tmp_path / "d.onnx")
    embeds, wanted = reference(vlm, torch.randint(5, 300, (1, 9)))
    session = engine(tmp_path / "d.onnx")
    feeds = {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((1, 9), np.int64),
        "position_ids": np.arange(9)[None],
        **empty(parts, 1),
    }
    known = {one.name for one in session.get_inputs()}
    found = run(session, {name: value for name, value in feeds.items() if name in known})["logits"]
    assert close(found, wanted)


def test_what_the_native_engine_runs_is_told_from_the_rest(load, folder):
    from slimsearch.native import form

    parts = anatomy.read(load(folder))
    with pytest.raises(ModelError, match=r"like LLaMA's; this one has \w.*--to onnx"):
        form.check(parts)


def test_blocks_of_other_kinds_are_refused(load, tmp_path):
    vlm = load(tiny_families.make("gemma2", tmp_path / "model", blocks=1))
    vlm.model.config.layer_types = ["chunked_attention"]
    with pytest.raises(ModelError, match="has blocks of 'chunked_attention'"):
        anatomy.read(vlm)
