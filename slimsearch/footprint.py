"""How much memory this process took at its highest, and on what machine."""

import os
import platform
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from slimsearch.processor import processor_name

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: Linux counts KiB


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that was held at once: on a GPU the card's, else this process's."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def free_bytes(device: Any) -> int:
    """What could be held besides what is: on a GPU, or in memory as far as the system lets us."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return min(_available(), _allowed())


def machine(device: str = "cpu") -> str:
    """The processor with its cores, or the card."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name() or platform.machine()}, {cores} core{'s' * (cores != 1)}"


def _available() -> int:
    """Memory that the system could give; all that it has where that cannot be read."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _allowed() -> int:
    """Memory that a container leaves us, where we are in one that has a limit."""
    found = [sys.maxsize]
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            folder = Path("/sys/fs/cgroup", line.split(":", 2)[2].lstrip("/"))
            most, held = (int((folder / f"memory.{w}").read_text()) for w in ("max", "current"))
            found.append(most - held)
    return min(found)
