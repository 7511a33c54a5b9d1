"""Formulas against torch's own counter, on tiny random models of many kinds."""

import pytest
import tiny
import tiny_families
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from slimsearch.flops import count, shape
from slimsearch.flops.count import FFN, HEAD, PROJECTIONS, PROJECTOR, SCORES, VISION
from slimsearch.model import checkpoint
from slimsearch.routes.route import plain
from slimsearch.routes.traffic import Traffic, prompt, token

TEXT = 11
KINDS = {
    "llama": {}, "llama, tied": {"tied": True}, "llama, every head its own keys": {
        "heads": 4, "kv_heads": 4, "head_dim": 8}, "mistral": {}, "qwen2": {}, "qwen3": {},
    "gemma": {}, "gemma2": {}, "opt": {}, "phi3": {},
}  # fmt: skip


def counted(call) -> FlopCounterMode:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter


def by_module(counter: FlopCounterMode, *ends: str) -> int:
    """What modules with such a name computed, all operations together."""
    found = counter.get_flop_counts()
    return sum(sum(f.values()) for name, f in found.items() if name.split(".")[-1] in ends)


def load(folder, *, attention: str = "eager"):
    config = checkpoint.find(str(folder)).config
    sees = config["model_type"] in tiny_families.VISION
    kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    return kind.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_costs_what_the_counter_says(kind, tmp_path):
    folder = tiny_families.make(kind.partition(",")[0], tmp_path / "model", **KINDS[kind])
    model, found = load(folder), shape.read(checkpoint.find(str(folder)))
    ids = torch.arange(10, 10 + TEXT)[None]
    read = prompt(plain(len(found.spans)), found.spans, 0, TEXT)
    parts = count.decoder(found, read, {})
    counter = counted(lambda: model(ids, logits_to_keep=1, use_cache=False))
    roles = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj")
    assert parts[PROJECTIONS].dense == by_module(counter, *roles)
    ffn = ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2")
    assert parts[FFN].dense == by_module(counter, *ffn)
    assert parts[HEAD].dense == by_module(counter, "lm_head")
    rotation = by_module(counter, "rotary_emb")  # a tiny product that no formula counts
    assert count.total(parts).dense == counter.get_total_flops() - rotation

    said = token(plain(len(found.spans)), read)
    cache = model(ids).past_key_values
    counter = counted(lambda: model(ids[:, -1:], past_key_values=cache))
    rotation = by_module(counter, "rotary_emb")
    whole = count.total(count.decoder(found, said, {})).dense
    assert whole == counter.get_total_flops() - rotation
    keys = model(ids).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in keys.layers)
    assert count.cache_bytes(found, read) == kept


@pytest.mark.parametrize("family", ["llava", "vipllava", "internvl"])
def test_the_vision_side_costs_what_the_counter_says(family, tmp_path):
    folder = tiny_families.make(family, tmp_path / "model")
    model, found = load(folder), shape.read(checkpoint.find(str(folder)))
    sides = checkpoint.find(str(folder)).config["vision_config"]["image_size"]
    sides = (sides, sides) if isinstance(sides, int) else sides
    counter = counted(lambda: model.model.get_image_features(pixel_values=torch.rand(1, 3, *sides)))
    assert found.tower is not None
    parts = count.pictures(found, found.tower.visual)
    projector, tower = (type(part).__name__ for part in (
        model.model.multi_modal_projector, model.model.get_encoder(modality="image")))  # fmt: skip
    assert parts[PROJECTOR].dense == by_module(counter, projector)
    assert parts[VISION].dense == by_module(counter, tower)
    twice = count.pictures(found, 2 * found.tower.visual)
    assert count.total(twice).dense == 2 * count.total(parts).dense


TILES = {  # how three tiles are handed over
    "llava_next": ((1, 3), {"image_sizes": torch.tensor([[16, 16]])}),
    "llava_onevision": ((1, 3), {"image_sizes": torch.tensor([[16, 16]])}),
    "idefics3": ((1, 3), {}),
    "smolvlm": ((1, 3), {}),
    "gemma3": ((3,), {}),
    "paligemma": ((3,), {}),
}


@pytest.mark.parametrize("family", TILES)
def test_tiles_cost_what_the_counter_says(family, tmp_path):
    folder = tiny_families.make(family, tmp_path / "model")
    model, found = load(folder), shape.read(checkpoint.find(str(folder)))
    many, beside = TILES[family]
    side = model.config.vision_config.image_size
    pixels = torch.rand(*many, 3, side, side)
    counter = counted(lambda: model.model.get_image_features(pixel_values=pixels, **beside))
    assert found.tower is not None
    assert found.tower.tiles
    parts = count.pictures(found, 3 * found.tower.visual)
    assert parts[VISION].dense == by_module(
        counter, type(model.model.get_encoder(modality="image")).__name__
    )
    assert count.total(parts).dense == counter.get_total_flops()


def test_zeros_are_counted_apart(tmp_path):
    found = shape.read(checkpoint.find(str(tiny.llama(tmp_path / "model"))))
    read = prompt(plain(len(found.spans)), found.spans, 0, TEXT)
    whole = count.decoder(found, read, {})
    some = count.decoder(found, read, {"blocks.0.q": 0.5, "blocks.1.down": 0.25})
    q, down = (
        2 * TEXT * matrix.size
        for matrix in found.matrices
        if matrix.name in ("blocks.0.q", "blocks.1.down")
    )
    assert some[PROJECTIONS].left == whole[PROJECTIONS].left - 0.5 * q
    assert some[FFN].left == whole[FFN].left - 0.25 * down
    assert {p: f.dense for p, f in some.items()} == {p: f.dense for p, f in whole.items()}
    assert some[SCORES] == whole[SCORES]


def test_a_configuration_is_enough(tmp_path):
    folder = tiny.llava(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    found = shape.read(checkpoint.beside(folder))
    assert len(found.spans) == 2
    assert found.tower is not None
    assert found.tower.visual == tiny.VISUAL_TOKENS


@pytest.mark.parametrize("window", [0, 2, 100])
def test_what_a_cut_leaves_is_what_a_mask_would_show(window):
    """Pairs counted one by one: text asks for everything, a picture's tokens for those near."""
    work = Traffic(visual=7, text=3, fed=10, window=window)
    text = work.text * work.tokens
    near = sum(min(work.visual, window + 1) for _ in range(work.visual)) if window else 0
    assert work.pairs == text + near
    assert work.tokens == 10
