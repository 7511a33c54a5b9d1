"""What this machine's processor can do."""

from pathlib import Path

BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # either multiplies bf16 in hardware


def processor_flags() -> set[str]:
    """Its features as Linux names them; empty where that cannot be read."""
    return set(_line("flags").split())


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
