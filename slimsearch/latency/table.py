"""Times of single matrices by shape and sparsity, and of a decoder's rest: their sum foretells.

Between two measured sparsities a time lies on the line between theirs. The rest (attention, norms,
the head, what a pass costs by itself) is taken at the mean sparsity.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimsearch import files
from slimsearch.errors import RunError

CACHE = "SLIMSEARCH_CACHE"  # a folder that takes the place of ~/.cache/slimsearch


@dataclass(frozen=True)
class Part:
    """A matrix as far as its time goes."""

    shape: str  # "rows x columns"
    size: int
    sparsity: float


@dataclass(frozen=True)
class Point:
    """A decoder whose matrices all have one sparsity, in milliseconds a pass."""

    sparsity: float
    matrices: Mapping[str, float]  # one matrix of each shape
    rest: float
    head: float = 0.0  # of the rest


@dataclass(frozen=True)
class Table:
    key: Mapping[str, Any]  # processor, engine, phase, shapes: what the times hold for
    points: Sequence[Point]  # by rising sparsity, the first of them dense

    def predict(self, parts: Sequence[Part]) -> float:
        """Milliseconds of a pass through a decoder with these matrices."""
        total = sum(part.size for part in parts)
        mean = sum(part.size * part.sparsity for part in parts) / total
        return self._at(mean, lambda point: point.rest) + sum(
            self._at(part.sparsity, lambda point, shape=part.shape: point.matrices[shape])
            for part in parts
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _at(self, sparsity: float, value: Any) -> float:
        known = [point.sparsity for point in self.points]
        after = min(max(bisect_right(known, sparsity), 1), len(known) - 1)
        left, right = self.points[after - 1], self.points[after]
        share = (sparsity - left.sparsity) / (right.sparsity - left.sparsity)
        return value(left) + min(max(share, 0.0), 1.0) * (value(right) - value(left))


def from_dict(facts: Mapping[str, Any]) -> Table:
    return Table(facts["key"], tuple(Point(**point) for point in facts["points"]))


def recalled(noted: Mapping[str, Any]) -> Table:
    """What a run's journal keeps of `as_dict`."""
    try:
        return from_dict(noted)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"The times that the run's journal keeps cannot be read ({error!r}); restore it."
        ) from None


def cached(key: Mapping[str, Any]) -> Table | None:
    """The table that was measured for this key before, if it can be read."""
    try:
        found = from_dict(json.loads(_file(key).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.key == dict(key) else None


def keep(table: Table) -> None:
    """Remembers a table for later runs on this machine."""
    file = _file(table.key)
    with files.writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, files.to_json(table.as_dict(), indent=1).encode())


def _file(key: Mapping[str, Any]) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(CACHE) or Path(base, "slimsearch"))
    name = hashlib.sha256(files.to_json(dict(key)).encode()).hexdigest()[:20]
    return folder / "latency" / f"{name}.json"
