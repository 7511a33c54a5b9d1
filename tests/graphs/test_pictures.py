"""The vision side as a graph against the model's own, run by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch

from slimsearch.graphs import pictures
from slimsearch.model.resident import Resident

SHAPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("shape", SHAPES)
def test_any_number_of_pictures(load, tmp_path, shape):
    folder = tiny.llava(tmp_path / "model", dtype=SHAPES[shape])
    pictures.build(load(folder, shape)).write(tmp_path / "v.onnx")
    onnx.checker.check_model(str(tmp_path / "v.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "v.onnx"))
    reference = Resident(load(folder, "float32"))
    for count in (1, 2, 5):
        pixels = np.random.default_rng(count).standard_normal(
            (count, 3, tiny.PICTURE_SIZE, tiny.PICTURE_SIZE), np.float32
        )
        (found,) = session.run(None, {"pixel_values": pixels})
        wanted = reference.see(pixels)
        assert found.shape == wanted.shape == (count, tiny.VISUAL_TOKENS, 32)
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_the_model_is_as_it_was_afterwards(load, llava_16, tmp_path):
    vlm = load(llava_16, "bfloat16")
    before = {name: weight.clone() for name, weight in vlm.model.state_dict().items()}
    kind = vlm.model.config.vision_config._attn_implementation
    pictures.build(vlm).write(tmp_path / "v.onnx")
    assert vlm.model.config.vision_config._attn_implementation == kind
    for name, weight in vlm.model.state_dict().items():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])
    held = onnx.load(str(tmp_path / "v.onnx")).graph
    assert {one.name for one in held.input} == {"pixel_values"}
    assert not any(node.op_type == "Transpose" and node.input[0] in before for node in held.node)
