"""A report of one run or several: one HTML file that needs nothing else, and its figures as files.

report.html      text, tables, figures and pictures in one, without a script
figures/         every figure as SVG, light and dark, and as PNG

story       what a run's folder holds, read without a model
sections    a run as chapters: beside, quality, search, answers, cost; overview: several runs
study       what `compare` and `sweep` leave, as a chapter
findings, searching    stories as scenes
page, markup, words    HTML by hand; style.css: how it looks
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slimsearch import files
from slimsearch.errors import RunError, SettingsError
from slimsearch.reporting import overview, page, sections, story, study

PAGE = "report.html"


def report(runs: Sequence[Path], folder: Path, benches: Sequence[Path] = ()) -> list[Path]:
    """Writes a report of runs and studies into a new folder; returns its page and its figures."""
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another --out, or remove it.")
    if benches and len(runs) > 1:
        raise SettingsError(
            "--bench belongs to one run. With several, keep each one's as RUN/bench.json."
        )
    studies = [run for run in runs if study.is_one(run)]
    stories = [story.read(run) for run in runs if run not in studies]
    if benches and studies:
        raise SettingsError(f"--bench belongs to a run, and {studies[0]} is a study of several.")
    if benches:
        stories = [replace(stories[0], benches=story.read_benches(benches))]
    several = len(runs) > 1
    names = [one.name for one in stories] + [place.resolve().name for place in studies]
    prefixes = _prefixes(names) if several else [""]
    count = len(stories)
    chapters = [
        *(sections.chapter(*pair) for pair in zip(stories, prefixes[:count], strict=True)),
        *(study.chapter(*pair) for pair in zip(studies, prefixes[count:], strict=True)),
    ]
    opening = overview.opening(stories) if count > 1 else None
    every = [*([opening] if opening else []), *chapters]
    figures = [figure for chapter in every for figure in chapter.figures]
    with files.new_folder(folder) as place:
        (place / PAGE).write_text(page.whole(stories, opening, chapters), "utf-8")
        for figure in figures:
            page.draw(figure, place / "figures")
    return [folder / PAGE, *sorted((folder / "figures").glob("*"))]


def _prefixes(names: Sequence[str]) -> list[str]:
    """What a run's anchors and figures begin with; two runs of one name are numbered."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"
        number = sum(prefix == f"{plain}-" or prefix.startswith(f"{plain}_") for prefix in found)
        found.append(f"{plain}_{number + 1}-" if number else f"{plain}-")
    return found
