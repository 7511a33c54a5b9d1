"""Fixed graphs in the real DeepSparse: taken whole, sparse kernels used, ONNX Runtime's numbers."""

import numpy as np
import onnxruntime
import pytest
import tiny
import torch

from slimsearch.graphs import anatomy, decoder
from slimsearch.graphs.int8 import Int8
from slimsearch.graphs.linear import dense
from slimsearch.guest import host
from slimsearch.guest.host import Guest

pytestmark = pytest.mark.skipif(bool(host.missing()), reason=f"DeepSparse: {host.missing()}")
SHAPES = {"prompt": decoder.Fixed(32, 0), "decode": decoder.Fixed(1, 24)}
FORMS = {"fp32": lambda: dense, "int8": Int8}


@pytest.fixture(scope="module")
def guest():
    with Guest(cores=1) as opened:
        yield opened


def feeds(parts: anatomy.Decoder, fixed: decoder.Fixed) -> dict[str, np.ndarray]:
    """Two places are hidden: padding, or room in the cache that is not taken yet."""
    draw = np.random.default_rng(0)
    whole = fixed.past + fixed.tokens
    mask = np.triu(np.full((fixed.tokens, whole), decoder.HIDDEN, np.float32), 1 + fixed.past)
    mask[:, :2] = decoder.HIDDEN
    cache = (1, parts.key_heads, fixed.past, parts.head_width)
    found = {
        "inputs_embeds": draw.standard_normal((1, fixed.tokens, parts.width), dtype=np.float32),
        "position_ids": np.arange(fixed.past, whole)[None],
        "mask": mask[None, None],
    }
    for index in range(len(parts.blocks) if fixed.past else 0):
        for kind in ("key", "value"):
            past = draw.standard_normal(cache, dtype=np.float32)
            found[f"past_key_values.{index}.{kind}"] = past
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("phase", SHAPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.7])
def test_the_engine_takes_it_whole_and_right(guest, load, tmp_path, phase, form, sparsity):
    vlm = load(tiny.llama(tmp_path / "model", kv_heads=2, blocks=1))
    for n, matrix in enumerate(vlm.matrices):
        torch.manual_seed(n)
        weight = vlm.linear(matrix.name).weight.data
        weight[torch.rand(weight.shape) < sparsity] = 0
    parts, fixed = anatomy.read(vlm), SHAPES[phase]
    decoder.build(parts, fixed, FORMS[form]()).write(tmp_path / "g.onnx")
    given = feeds(parts, fixed)
    wanted = onnxruntime.InferenceSession(str(tmp_path / "g.onnx")).run(None, given)
    engine = guest.compile("g", tmp_path / "g.onnx")
    inputs = [given[name] for name in engine.inputs]
    found = guest.run("g", inputs, [None] * len(engine.outputs))
    assert engine.supported == 1.0
    for one, two in zip(found, wanted, strict=True):
        assert one.shape == two.shape
        assert np.abs(one - two).max() < 2e-5 * np.abs(two).max()
    layers = guest.analyse(tmp_path / "g.onnx", inputs, repeats=1)["layer_info"]
    kernels = {layer["canonical_name"]: layer["name"] for layer in layers}
    for matrix in vlm.matrices:
        if sparsity:
            assert kernels[f"{matrix.name}:0"].startswith("ks_"), kernels
