"""Weights on their way into a file."""

import numpy as np
import onnx
import pytest
import torch

from slimsearch.graphs import sheet


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("step", [1, 60, 1 << 20])
def test_a_half_is_widened_piece_by_piece_to_the_same_numbers(tmp_path, monkeypatch, beside, step):
    monkeypatch.setattr(sheet, "STEP", step)
    monkeypatch.setattr(sheet, "INLINE", 0 if beside else 1 << 30)
    held = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    page = sheet.Sheet("page")
    page.weight("w", np.float32, (7, 5), lambda: held.t())
    page.weight("one", np.float32, (), lambda: held[0, 0])
    page.write(tmp_path / "page.onnx")
    found = {w.name: onnx.numpy_helper.to_array(w)
             for w in onnx.load(str(tmp_path / "page.onnx")).graph.initializer}  # fmt: skip
    np.testing.assert_array_equal(found["w"], held.float().t().numpy())
    np.testing.assert_array_equal(found["one"], held[0, 0].float().numpy())
