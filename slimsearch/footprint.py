"""How much memory this process took at its highest, and on what machine."""

import os
import platform
import resource
import sys

from slimsearch.processor import processor_name

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: Linux counts KiB


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that was held at once: on a GPU the card's, else this process's."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def machine(device: str = "cpu") -> str:
    """The processor with its cores, or the card."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name() or platform.machine()}, {cores} core{'s' * (cores != 1)}"
