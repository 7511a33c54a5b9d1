"""How nested facts, such as the fingerprint of a run, differ from those of before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def between(
    then: Mapping[str, Any], now: Mapping[str, Any], but: Collection[str] = ()
) -> list[str]:
    """What differs, a line each; keys named in `but` may."""
    before, after = _flat(then), _flat(now)
    return [
        f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key.rpartition(".")[2] not in but
    ]


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts as one level of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found
