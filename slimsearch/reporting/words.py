"""How figures, terms and numbers are spelt in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slimsearch.settings import Settings, as_dict

FIGURES = {  # of a run's own table: how it is called, and whether more is better
    "perplexity": ("text perplexity", False),
    "accuracy": ("answers right", True),
    "answer_loss": ("loss on answers", False),
}
NOT_SAID = ("out", "json", "dry_run")  # settings that change no result


def spelt(term: str) -> str:
    """An objective's term, or a task, as words."""
    return {"answer_loss": "loss on answers"}.get(term, term.replace("_", " "))


def part(name: str) -> str:
    """A part of the model, such as blocks.3.gate, as words."""
    _, block, *role = name.split(".")
    return f"block {block}'s {role[0]}" if role else f"block {block}"


def figure(key: str, value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.1%}" if key == "accuracy" else f"{value:.3f}"


def bounded(told: Mapping[str, Any] | None) -> str:
    """A figure of an evaluation, its 95% interval in brackets where that was kept."""
    if told is None or told["value"] is None:
        return "not measured"
    if told.get("low") is None:
        return f"{told['value']:.2f}"
    return f"{told['value']:.2f} [{told['low']:.2f}, {told['high']:.2f}]"


def count(number: float) -> str:
    """A large number as a person says it."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,.0f}"


def size(content: float) -> str:
    """So many bytes."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if content >= unit:
            return f"{content / unit:.3g} {name}"
    return f"{content:.0f} bytes"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def listed(names: Sequence[str]) -> str:
    """One, two and three."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def command(settings: Settings) -> str:
    """The run as one line to type: whatever was chosen otherwise than by default."""
    import shlex

    chosen, usual = as_dict(settings), as_dict(Settings())
    words = ["slimsearch", "run"]
    for key, value in chosen.items():
        if key in NOT_SAID or (value == usual[key] and key != "ratio"):
            continue
        flag = "--" + key.replace("_", "-")
        words += (
            [flag]
            if value is True
            else [flag, f"{value:g}" if isinstance(value, float) else str(value)]
        )
    return shlex.join([*words, "--out", "again"])
