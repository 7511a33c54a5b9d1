"""What this machine's processor can do."""

from pathlib import Path

BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # either multiplies bf16 in hardware


def processor_flags() -> set[str]:
    """Its features as Linux names them; empty where that cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return set()
    line = next((row for row in text.splitlines() if row.startswith("flags")), "")
    return set(line.split())
