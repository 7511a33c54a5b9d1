"""The doctor finds what is there and says what its absence costs."""

import platform
import shutil

import torch

from slimsearch import machine
from slimsearch.guest import host


def test_every_part_is_looked_at():
    found = {finding.part: finding for finding in machine.look()}
    assert {"Python", "torch", "transformers", "pymoo", "datasets", "processor", "memory", "GPU",
            "solver kernel", "deepsparse", "C compiler",
            "onnx", "onnxruntime", "openvino"} <= set(found)  # fmt: skip
    assert found["Python"].found == platform.python_version()
    assert found["torch"].found == torch.__version__
    assert found["GPU"].ok == torch.cuda.is_available()
    assert all(finding.advice for finding in found.values() if not finding.ok)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(machine, "_version", lambda _: None)
    monkeypatch.setattr(machine, "processor_flags", lambda: {"sse2"})
    monkeypatch.setattr(host, "missing", lambda: "it is not there.")
    found = {finding.part: finding for finding in machine.look()}
    for part in ("torch", "deepsparse", "C compiler", "processor"):
        assert not found[part].ok
        assert found[part].advice
    assert "DeepSparse will not run" in found["processor"].advice


def test_a_system_without_proc_is_no_failure(monkeypatch):
    monkeypatch.setattr(host.Path, "read_text", lambda *_: (_ for _ in ()).throw(OSError()))
    assert host.processor_flags() == set()
