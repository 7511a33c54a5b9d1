"""Weights of int8 by what a processor adds rightly."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from slimsearch import processor
from slimsearch.errors import ModelError
from slimsearch.graphs import int8, steps
from slimsearch.graphs.anatomy import Matrix
from slimsearch.graphs.sheet import Sheet


@pytest.fixture(params=[{"avx2"}, {"avx2", "avx512f"}], ids=["avx2", "avx512"])
def old(request, monkeypatch) -> None:
    monkeypatch.setattr(processor, "processor_flags", lambda: request.param)
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_processors_that_add_bytes_as_they_are_get_all_steps(flag, monkeypatch):
    monkeypatch.setattr(processor, "processor_flags", lambda: {"avx2", flag})
    assert steps.here() == 127


def test_no_sum_of_two_products_is_cut_off(old):
    assert 2 * 255 * steps.here() < 1 << 15


def test_other_machines_than_x86_are_taken_to_add_rightly(monkeypatch):
    monkeypatch.setattr(processor, "processor_flags", set)
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    assert steps.here() == 127


def test_what_this_processor_would_compute_wrongly_is_refused(old):
    for record in ({"int8": True}, {"int8": True, "steps": 127}, {"int8": True, "steps": "x"}):
        with pytest.raises(ModelError, match="processor with VNNI"):
            steps.check(Path("export"), record)
    for record in ({}, {"int8": False, "steps": 127}, {"int8": True, "steps": 63}):
        steps.check(Path("export"), record)


def test_the_largest_of_all_comes_out_right_on_this_machine(tmp_path):
    """Every activation and weight as large as can be: where sums would be cut off first."""
    weight, x = torch.ones(16, 64), np.ones((1, 3, 64), np.float32)
    sheet = Sheet("large")
    made = int8.Int8()(sheet, sheet.input("x", np.float32, x.shape), Matrix("m", weight, None))
    sheet.output("y", made, np.float32, (1, 3, 16))
    sheet.write(tmp_path / "g.onnx")
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "g.onnx")).run(None, {"x": x})
    np.testing.assert_allclose(found, 64.0, rtol=1e-3)
