"""What this machine brings: each part, whether it is there, and what its absence costs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from slimsearch.guest import LICENCE, host
from slimsearch.processor import processor_flags

USEFUL_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Finding:
    part: str
    ok: bool
    found: str
    advice: str = ""


def look() -> list[Finding]:
    return [
        _python(),
        *(_package(*wanted) for wanted in _PACKAGES),
        _processor(),
        _memory(),
        _gpu(),
        _solver(),
        _deepsparse(),
        _compiler(),
    ]


_PACKAGES = (
    ("torch", "nothing runs without it: pip install torch"),
    ("transformers", "nothing runs without it: pip install 'transformers>=5'"),
    ("pymoo", "no genetic strategy: pip install pymoo"),
    ("datasets", "no ptb, wikitext2 or c4 from the hub; local files work: pip install datasets"),
    ("onnx", "no export to ONNX, OpenVINO or DeepSparse: pip install 'slimsearch[onnx]'"),
    ("onnxruntime", "no ONNX Runtime to generate with: pip install 'slimsearch[onnx]'"),
    ("openvino", "no OpenVINO to generate with: pip install 'slimsearch[openvino]'"),
    ("ray", "candidates are scored by one process: pip install 'slimsearch[ray]'"),
)


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("Python", ok, platform.python_version(), "" if ok else "needs 3.11 or later")


def _package(name: str, advice: str) -> Finding:
    found = _version(name)
    return Finding(name, found is not None, found or "not installed", "" if found else advice)


def _processor() -> Finding:
    flags = processor_flags()
    found = [flag for flag in USEFUL_FLAGS if flag in flags]
    where = f"{os.cpu_count()} cores, {platform.machine()}"
    if not flags:
        return Finding("processor", True, where, "its features cannot be read on this system")
    ok = "avx2" in flags
    missing = "" if ok else "no AVX2: DeepSparse will not run, torch is slow"
    return Finding("processor", ok, f"{where}, {' '.join(found) or 'no vector flags'}", missing)


def _memory() -> Finding:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return Finding("memory", True, "unknown")
    return Finding("memory", True, f"{size:.0f} GiB", "slimsearch plan says what a model needs")


def _gpu() -> Finding:
    import torch

    from slimsearch.surgery import obs

    if torch.cuda.is_available():
        solver = obs.backend("cuda")
        advice = (
            "" if solver == "triton" else "its solver is faster with triton: pip install triton"
        )
        return Finding("GPU", True, f"{torch.cuda.get_device_name()}, solver in {solver}", advice)
    advice = "large models are slow to search; needs an NVIDIA card and a CUDA build of torch"
    return Finding("GPU", False, "none", advice)


def _solver() -> Finding:
    from slimsearch.surgery import obs

    compiled = obs.backend() == "c"
    advice = "" if compiled else "the solver runs in torch, which is slower; a C compiler mends it"
    return Finding("solver kernel", compiled, obs.backend(), advice)


def _deepsparse() -> Finding:
    found = _version("deepsparse") or "not installed"
    if reason := host.missing():
        return Finding("deepsparse", False, found, f"no engine that uses zeros: {reason}")
    return Finding("deepsparse", True, found, LICENCE)


def _compiler() -> Finding:
    found = shutil.which("cc") or shutil.which("gcc")
    return Finding(
        "C compiler",
        found is not None,
        found or "none",
        "" if found else "no compiled solver kernel: install gcc",
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
