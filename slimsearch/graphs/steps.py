"""How many steps of int8 a weight has, by what processors multiply rightly.

x86 processors without VNNI add two products of bytes in 16 bits and cut off what does not fit, in
DeepSparse and in ONNX Runtime alike. With 63 steps to a weight instead of 127 every sum fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimsearch.errors import ModelError
from slimsearch.processor import adds_bytes_exactly

STEPS = 127  # from zero to the largest size
FEWER = 63  # of a weight, where sums of more are cut off


def here() -> int:
    """The most that this machine's processor multiplies rightly."""
    return STEPS if adds_bytes_exactly() else FEWER


def check(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuses a form in int8 of which this processor would make wrong numbers."""
    known = record.get("steps")  # older exports tell none
    if record.get("int8") and here() < (known if isinstance(known, int) else STEPS):
        raise ModelError(
            f"{folder} was written in int8 on a processor with VNNI. This one has none: it cuts "
            f"off sums of bytes, and the numbers would be wrong. Export it with --int8 on this "
            f"machine, or without."
        )
