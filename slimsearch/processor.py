"""What this machine's processor can do."""

import platform
from pathlib import Path

EXACT_BYTES = {"avx512_vnni", "avx_vnni", "amx_int8"}  # any adds products of bytes as they are
BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # either multiplies bf16 in hardware


def processor_flags() -> set[str]:
    """Its features as Linux names them; empty where that cannot be read."""
    return set(_line("flags").split())


def adds_bytes_exactly() -> bool:
    """Whether engines can add products of unsigned and signed bytes without cutting them off.

    Other x86 processors add two of them in 16 bits, which 255 times 127 twice does not fit.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    return not x86 or bool(EXACT_BYTES & processor_flags())


def processor_name() -> str:
    """What its maker calls it; empty where that cannot be read."""
    return _line("model name").strip()


def _line(key: str) -> str:
    """What Linux tells of the first core under a key."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return ""
    line = next((row for row in text.splitlines() if row.startswith(key)), "")
    return line.partition(":")[2]
