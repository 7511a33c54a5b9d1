"""How much calibration text a search needs: the number and length of segments, varied and drawn.

SlimLLaVA's Figure 3 shows the same for its own model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from slimsearch import files
from slimsearch.api import studying
from slimsearch.api.studying import Outcome, Trial
from slimsearch.drawing import Chart, Series, beside, plot, svg
from slimsearch.errors import SettingsError
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

DRAWN = {"accuracy": "VQA accuracy", "perplexity": "text perplexity"}


def numbers(text: str, flag: str, least: int = 1) -> list[int]:
    """Whole numbers from a list such as '8,16,32'."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or min(found) < least:
        raise SettingsError(f"{flag} '{text}' cannot be read: give numbers such as 8,16,32.")
    return sorted(set(found))


def trials(chosen: Settings, counts: Sequence[int], lengths: Sequence[int]) -> list[Trial]:
    own = replace(chosen, skip_baselines=True)
    return [
        Trial(
            f"{count}x{length}",
            f"{count} segments of {length} tokens",
            replace(own, segments=count, segment_length=length),
        )
        for length in lengths
        for count in counts
    ]


def sweep(
    chosen: Settings, counts: Sequence[int], lengths: Sequence[int], folder: Path, watch: Watch
) -> list[Outcome]:
    """Runs every pair of number and length, and leaves sweep.json and sweep.svg in the folder."""
    rows = trials(chosen, counts, lengths)
    found = studying.carry_out(rows, folder, watch)
    facts = {"model": chosen.model, "ratio": chosen.ratio, "rows": studying.as_dicts(found)}
    files.write(folder / "sweep.json", files.to_json(facts, indent=2).encode())
    drawn = beside([plot(chart) for chart in charts(rows, found)])
    files.write(folder / "sweep.svg", svg(drawn).encode())
    return found


def charts(
    rows: Sequence[Trial], found: Sequence[Outcome], drawn: Mapping[str, str] = DRAWN
) -> list[Chart]:
    """A chart for each figure, a line for each length, against the number of segments."""
    settings = {row.name: row.settings for row in rows}
    lengths = sorted({settings[outcome.name].segment_length for outcome in found})
    return [
        Chart(
            title,
            "segments",
            title,
            [
                Series(
                    f"{length} tokens each",
                    [
                        (settings[outcome.name].segments, outcome.figures[key])
                        for outcome in found
                        if settings[outcome.name].segment_length == length
                        and key in outcome.figures
                    ],
                )
                for length in lengths
            ],
            doubling=True,
        )
        for key, title in drawn.items()
        if any(key in outcome.figures for outcome in found)
    ]
