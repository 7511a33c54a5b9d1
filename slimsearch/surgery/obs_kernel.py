"""Builds and calls obs_kernel.c: the OBS solve at full speed on a CPU, where a compiler is found.

Where it cannot be compiled (compiled.py), `load()` is None and obs.py goes on in torch.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from slimsearch import compiled

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
BLOCK = 128  # as in the C source
GROUP = 8


class _Task(ctypes.Structure):
    """Mirrors Task in the C source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "columns", "levels", "panels")),
        *((name, ctypes.c_void_p) for name in ("weights", "upper", "panelled", "gone")),
        *((name, ctypes.c_void_p) for name in ("block", "slab", "scores", "spare")),
        *((name, ctypes.c_int64) for name in ("keep", "group")),
    )


def solve(
    library: ctypes.CDLL,
    weights: Tensor,
    upper: Tensor,
    counts: Sequence[Sequence[int]],
    whole_ties: bool,
    keep: tuple[int, int] | None,
) -> tuple[Tensor, list[float]]:
    """As `obs.solve`, for tensors on the CPU."""
    weights, upper = weights.contiguous(), upper.contiguous()
    (rows, columns), levels, blocks = weights.shape, len(counts), len(counts[0])
    tall = library.panel_rows()
    panels = -(-rows // tall)
    threads = torch.get_num_threads()
    solved = torch.empty(levels, panels * tall, columns)
    gone = torch.empty(levels * panels, columns, dtype=torch.int32)
    block = torch.empty(levels * panels, BLOCK, tall)
    slab = torch.empty(BLOCK // GROUP, columns, GROUP)
    scores = torch.empty(levels, rows * BLOCK, dtype=torch.int32)
    spare = torch.empty(threads, columns, tall)
    losses = torch.empty(blocks, levels, panels, dtype=torch.float64)
    quotas = torch.tensor(counts, dtype=torch.int64)
    arrays = (weights, upper, solved, gone, block, slab, scores, spare)
    pointers = [array.data_ptr() for array in arrays]
    task = _Task(rows, columns, levels, panels, *pointers, *(keep or (0, 0)))
    library.solve(
        ctypes.byref(task),
        ctypes.c_void_p(quotas.data_ptr()),
        ctypes.c_int(whole_ties),
        ctypes.c_int(threads),
        ctypes.c_void_p(losses.data_ptr()),
    )
    return solved[:, :rows], losses.sum((0, 2)).tolist()


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be built."""
    library = compiled.library("obs_kernel", [SOURCE], FLAGS)
    if library is not None:
        library.panel_rows.restype = ctypes.c_int64
        library.solve.restype = None
    return library
