"""A guest shared by all tests here; where DeepSparse cannot run they are skipped, saying why."""

import numpy as np
import pytest
import torch

from slimsearch.graphs.sheet import Sheet
from slimsearch.guest import host
from slimsearch.guest.host import Guest

needs_deepsparse = pytest.mark.skipif(bool(host.missing()), reason=f"DeepSparse: {host.missing()}")


@pytest.fixture(scope="session")
def guest():
    if host.missing():
        pytest.skip(f"DeepSparse: {host.missing()}")
    with Guest(cores=1) as opened:
        yield opened


@pytest.fixture
def product(tmp_path):
    """A graph: x [1, 3, 16] times a matrix of which 0.8 is zero, and that matrix."""
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((16, 8), dtype=np.float32)
    weight[draw.random(weight.shape) < 0.8] = 0
    sheet = Sheet("product")
    given = sheet.input("x", np.float32, (1, 3, 16))
    held = sheet.weight("w", np.float32, (16, 8), lambda: torch.from_numpy(weight))
    made = sheet.op("MatMul", given, held)
    sheet.output("y", made, np.float32, (1, 3, 8))
    sheet.write(tmp_path / "product.onnx")
    return tmp_path / "product.onnx", weight
