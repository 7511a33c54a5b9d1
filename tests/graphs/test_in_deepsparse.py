"""Fixed graphs in the real DeepSparse: taken whole, sparse kernels used, ONNX Runtime's numbers."""

import numpy as np
import onnxruntime
import pytest
import tiny_families
import torch

from slimsearch.api import exporting
from slimsearch.api.exporting import Choices
from slimsearch.errors import EngineError, ModelError
from slimsearch.graphs import anatomy, decoder, masks
from slimsearch.graphs.int8 import Int8, patchy
from slimsearch.graphs.linear import dense
from slimsearch.guest import host
from slimsearch.guest.host import Guest

pytestmark = pytest.mark.skipif(bool(host.missing()), reason=f"DeepSparse: {host.missing()}")
# Beyond 32 tokens the engine has other kernels, as it has for a single one.
SHAPES = {
    "prompt": decoder.Fixed(40, 0),
    "few": decoder.Fixed(24, 0),
    "decode": decoder.Fixed(1, 24),
}
FORMS = {"fp32": lambda: dense, "int8": Int8}
# Widths of 40, 136 and 20 are no multiples of 16, of which sparse kernels would make wrong numbers.
ODD = {"hidden_size": 40, "intermediate_size": 136, "heads": 5, "kv_heads": 1, "head_dim": 4,
       "hidden_act": "gelu"}  # fmt: skip
EVEN = {"hidden_size": 32, "intermediate_size": 64, "heads": 4, "kv_heads": 2, "head_dim": 8,
        "attention_bias": False}  # fmt: skip


@pytest.fixture(scope="module")
def guest():
    with Guest(cores=1) as opened:
        yield opened


def feeds(parts: anatomy.Decoder, fixed: decoder.Fixed) -> dict[str, np.ndarray]:
    """Two places are hidden: padding, or room in the cache that is not taken yet."""
    draw = np.random.default_rng(0)
    whole = fixed.past + fixed.tokens
    cache = (1, parts.key_heads, fixed.past, parts.head_width)
    found = {
        "inputs_embeds": draw.standard_normal((1, fixed.tokens, parts.width), dtype=np.float32),
        "position_ids": np.arange(fixed.past, whole)[None],
        **masks.arrays(fixed, parts.windows, blank=2),
    }
    for index in range(len(parts.blocks) if fixed.past else 0):
        for kind in ("key", "value"):
            past = draw.standard_normal(cache, dtype=np.float32)
            found[f"past_key_values.{index}.{kind}"] = past
    return found


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Models of one block of which 0.7 is zero, by their sizes."""
    return {
        name: tiny_families.make(
            "llama", tmp_path_factory.mktemp(name) / "model", blocks=1, **sizes
        )
        for name, sizes in (("even", EVEN), ("odd", ODD))
    }


def zeroed(vlm) -> None:
    for n, matrix in enumerate(vlm.matrices):
        weight = vlm.linear(matrix.name).weight.data
        weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(n)) < 0.7] = 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phase", SHAPES)
@pytest.mark.parametrize("sizes", ["even", "odd"])
def test_the_engine_takes_it_whole_and_right(guest, load, pruned, tmp_path, phase, form, sizes):
    vlm = load(pruned[sizes])
    zeroed(vlm)
    engine, given, found, wanted = ran(
        guest, vlm, SHAPES[phase], FORMS[form](), tmp_path / "g.onnx"
    )
    assert engine.supported == 1.0
    for one, two in zip(found, wanted, strict=True):
        assert one.shape == two.shape
        assert np.abs(one - two).max() < 2e-5 * np.abs(two).max()
    if sizes == "even" and (form, phase) != ("int8", "prompt"):
        layers = guest.analyse(tmp_path / "g.onnx", given, repeats=1)["layer_info"]
        kernels = {layer["canonical_name"]: layer["name"] for layer in layers}
        checked = ["blocks.0.q"] if phase == "prompt" else [m.name for m in vlm.matrices]
        for name in checked:  # the tiny ones are run together with others in a prompt
            assert kernels[f"{name}:0"].startswith("ks_"), kernels


@pytest.mark.parametrize("form", FORMS)
def test_a_dense_one_too(guest, load, pruned, tmp_path, form):
    vlm = load(pruned["even"])
    engine, _, found, wanted = ran(guest, vlm, SHAPES["prompt"], FORMS[form](), tmp_path / "g.onnx")
    assert engine.supported == 1.0
    assert np.abs(found[0] - wanted[0]).max() < 2e-5 * np.abs(wanted[0]).max()


@pytest.mark.parametrize("sizes", ["even", "narrow"])
def test_zeros_in_patches_are_right_in_int8(guest, load, pruned, tmp_path, sizes):
    """Half of a matrix's rows, and a width that is filled up with as many zeros."""
    folder = pruned["even"]
    if sizes == "narrow":
        given = {**EVEN, "hidden_size": 6, "heads": 2, "kv_heads": 1}
        folder = tiny_families.make("llama", tmp_path / "model", blocks=1, **given)
    vlm = load(folder)
    vlm.linear("blocks.0.up").weight.data[::2] = 0
    parts = anatomy.read(vlm)
    spared = [one.name for one in parts.matrices if patchy(decoder.filled(one))]
    assert "blocks.0.up" in spared
    linear = Int8(spared)
    _, _, found, wanted = ran(guest, vlm, SHAPES["prompt"], linear, tmp_path / "g.onnx")
    for one, two in zip(found, wanted, strict=True):
        assert np.abs(one - two).max() < 2e-5 * np.abs(two).max()


def test_capped_scores_too(load, tmp_path):
    """On two cores, where DeepSparse dies of their tanh."""
    vlm = load(tiny_families.make("gemma2", tmp_path / "model", blocks=1, **EVEN))
    with Guest(cores=2) as both:
        engine, _, found, wanted = ran(both, vlm, decoder.Fixed(32, 0), dense, tmp_path / "g.onnx")
    assert engine.supported == 1.0
    for one, two in zip(found, wanted, strict=True):
        assert np.abs(one - two).max() < 2e-5 * np.abs(two).max()


@pytest.mark.parametrize("past", [72, 129, 256, 264])
def test_a_cache_of_grouped_keys_too(load, tmp_path, past):
    """On two cores, where DeepSparse dies of turned scores of a past that 16 does not divide; a
    large one that it does divide is not copied."""
    sizes = EVEN | {"hidden_size": 64, "head_dim": 16}
    vlm = load(tiny_families.make("llama", tmp_path / "model", blocks=2, **sizes))
    with Guest(cores=2) as both:
        engine, _, found, wanted = ran(
            both, vlm, decoder.Fixed(1, past), dense, tmp_path / "g.onnx"
        )
    assert engine.supported == 1.0
    for one, two in zip(found, wanted, strict=True):
        assert np.abs(one - two).max() < 2e-5 * np.abs(two).max()


def test_a_block_that_it_dies_of_is_refused_at_export(tmp_path, monkeypatch):
    """With AVX-512 it does die of this one; without, it does not."""

    def die(*_):
        raise EngineError("it died.")

    monkeypatch.setattr(Guest, "compile", die)
    folder = tiny_families.make("llama", tmp_path / "model", blocks=1, heads=4, kv_heads=2)
    with pytest.raises(
        ModelError, match=r"nothing for DeepSparse.* heads 10 wide.*--to onnx works"
    ):
        exporting.export(str(folder), ["deepsparse"], tmp_path / "out", Choices(room=40))
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def ran(guest, vlm, fixed, linear, file):
    """A model's graph in both engines: DeepSparse's, what went in, what came out of each."""
    parts = anatomy.read(vlm)
    decoder.build(parts, fixed, linear).write(file)
    given = feeds(parts, fixed)
    wanted = onnxruntime.InferenceSession(str(file)).run(None, given)
    engine = guest.compile("g", file)
    inputs = [given[name] for name in engine.inputs]
    return engine, inputs, guest.run("g", inputs, [None] * len(engine.outputs)), wanted
