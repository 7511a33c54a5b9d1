"""int8 matrices in a graph, against a plain calculation in float64; run by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from slimsearch.graphs import anatomy, decoder, int8, steps
from slimsearch.graphs.anatomy import Matrix
from slimsearch.graphs.sheet import Sheet


def pruned(rows: int, columns: int, share: float, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=draw)
    weight[torch.rand(rows, columns, generator=draw) < share] = 0
    return weight


def run(weights: list[torch.Tensor], x: np.ndarray, file) -> list[np.ndarray]:
    """x through int8 matrices side by side, in a graph of its own."""
    sheet, linear = Sheet("side by side"), int8.Int8()
    given = sheet.input("x", np.float32, x.shape)
    for n, weight in enumerate(weights):
        made = linear(sheet, given, Matrix(f"m{n}", weight, torch.full((len(weight),), 0.5)))
        sheet.output(f"y{n}", made, np.float32, (*x.shape[:-1], len(weight)))
    sheet.write(file)
    return onnxruntime.InferenceSession(str(file)).run(None, {"x": x})


def plain(weight: torch.Tensor, x: np.ndarray) -> np.ndarray:
    """What int8 with a scale a row and a scale a token means, in float64."""
    w = weight.double().numpy()
    step = np.abs(w).max(1, keepdims=True) / steps.here()
    size = np.abs(x.astype(np.float64)).max(-1, keepdims=True)
    rounded = np.rint(x / size * 127)
    return (rounded @ np.rint(w / step).T) * step.T * size / 127 + 0.5


def test_it_is_what_it_says(tmp_path):
    weights = [pruned(24, 32, 0.5), pruned(16, 32, 0.7, 1)]
    x = np.random.default_rng(0).standard_normal((1, 5, 32), dtype=np.float32)
    x[0, 3] *= 100  # a token that is much larger has a scale of its own
    for found, weight in zip(run(weights, x, tmp_path / "g.onnx"), weights, strict=True):
        np.testing.assert_allclose(found, plain(weight, x), rtol=2e-2, atol=0.1)
        exact = x @ weight.numpy().T + 0.5
        each = np.linalg.norm(found - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
        assert each.max() < 0.02


def test_one_input_is_quantised_once(tmp_path):
    run([pruned(8, 16, 0.5), pruned(8, 16, 0.5)], np.ones((1, 2, 16), np.float32), tmp_path / "g")
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "g")).graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("MatMulInteger") == 2


@pytest.mark.parametrize("share", [0.0, 0.4, 0.5, 0.9])
def test_scattered_zeros_are_no_patches(share):
    assert not int8.patchy(Matrix("m", pruned(64, 128, share), None))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.45])
@pytest.mark.parametrize(
    "place", [slice(32), (slice(None), slice(72, None))], ids=["rows", "columns"]
)
def test_whole_rows_and_columns_side_by_side_are_patches(share, place):
    weight = pruned(64, 128, share)
    weight[place] = 0
    assert int8.patchy(Matrix("m", weight, None))
    assert int8.patchy(decoder.filled(Matrix("m", pruned(64, 6, 0), None)))  # of 16 columns, then


def test_what_is_spared_stays_in_fp32(tmp_path):
    sheet, linear = Sheet("spared"), int8.Int8({"kept"})
    given = sheet.input("x", np.float32, (1, 2, 16))
    for name in ("kept", "coarse"):
        made = linear(sheet, given, Matrix(name, pruned(8, 16, 0.5), None))
        sheet.output(name, made, np.float32, (1, 2, 8))
    sheet.write(tmp_path / "g")
    held = {t.name: t.data_type for t in onnx.load(str(tmp_path / "g")).graph.initializer}
    assert held["kept.weight"] == onnx.TensorProto.FLOAT
    assert held["coarse.weight_int8"] == onnx.TensorProto.INT8


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_every_zero_stays_and_only_less_than_half_a_step_joins(share):
    weight = pruned(64, 48, share)
    weight[3] = 0  # a row without a scale
    steps, scale = int8.to_steps(weight), int8.row_scale(weight).unsqueeze(1)
    assert bool((steps[weight == 0] == 0).all())
    joined = (steps == 0) & (weight != 0)
    assert bool((weight.abs() <= scale / 2 * 1.0001)[joined].all())
    assert float((steps * scale - weight).abs().max()) <= float(scale.max()) / 2 * 1.0001
    assert joined.float().mean() < 0.02


def test_zeros_of_a_pruned_decoder_survive_in_the_file(load, llama, tmp_path):
    vlm = load(llama)
    for matrix in vlm.matrices:
        vlm.linear(matrix.name).weight.data[::2, ::3] = 0
    parts = anatomy.read(vlm)
    decoder.build(parts, decoder.Fixed(4, 0), int8.Int8()).write(tmp_path / "d.onnx")
    held = {t.name: onnx.numpy_helper.to_array(t)
            for t in onnx.load(str(tmp_path / "d.onnx")).graph.initializer}  # fmt: skip
    for matrix in vlm.matrices:
        stored = held[f"{matrix.name}.weight_int8"]
        assert stored.dtype == np.int8
        gone = (vlm.linear(matrix.name).weight == 0).t().numpy()
        assert gone.any()
        assert not stored[gone].any()
