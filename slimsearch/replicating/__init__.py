"""SlimLLaVA's Tables 1 to 4 and Figures 1 and 3 again, for the model and data at hand.

What the paper prints stands beside what was measured here; a cell that could not be run says so,
and the reason stands below its table.

published    the paper's numbers        study       runs and evaluations behind the tables
exhibits     tables and figures, a cell being a figure or the reason why there is none
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slimsearch import files
from slimsearch.replicating import exhibits, study
from slimsearch.replicating.exhibits import Exhibit
from slimsearch.replicating.study import Study
from slimsearch.reporting import page
from slimsearch.reporting.markup import Chapter, paragraph
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

PAGE, FACTS = "paper.html", "paper.json"


def replicate(
    chosen: Settings,
    only: str,
    sizes: tuple[Sequence[int], Sequence[int]],
    asked: Mapping[str, Sequence[str]],
    timed_in: str,
    folder: Path,
    watch: Watch,
) -> Study:
    """Runs and evaluates, and leaves paper.html, paper.json and the figures in the folder.

    `sizes` are numbers and lengths of segments for Figure 3; `asked` is what `slimsearch eval` is
    told for each benchmark that there is data of; `timed_in` is the form in which Figure 1 is
    timed, '' for not at all.
    """
    shown = study.exhibits(only)
    rows = study.trials(chosen, shown, *sizes)
    timed_in = timed_in if "figure-1" in shown else ""
    narrowed = exhibits.narrowed(shown) if asked else ()
    found = study.carry_out(rows, asked, timed_in, narrowed, folder, watch)
    tables = {
        name: exhibit
        for name, exhibit in (
            ("table-1", exhibits.ablations(found, "table-1")),
            ("table-2", exhibits.ablations(found, "table-2")),
            ("table-3", exhibits.table_3(found)),
            ("table-4", exhibits.table_4(found)),
        )
        if name in shown
    }
    chapters = _chapters(found, tables, shown)
    name = Path(chosen.model).name
    title = f"SlimLLaVA's tables, again, on {name}"
    said = paragraph(
        f"Tables 1 to 4 and Figures 1 and 3 of the paper in shape, for {name} and the data at "
        f"hand. Figures of another model or of other data are no contradiction of the paper's. "
        + " ".join(f"{method} here is {meaning}." for method, meaning in exhibits.MEANT.items())
    )
    opening = [said, exhibits.grounds(found, chosen)]
    files.write(folder / PAGE, page.page("slimsearch paper", title, opening, chapters).encode())
    files.write(folder / FACTS, files.to_json(_facts(chosen, tables), indent=2).encode())
    for chapter in chapters:
        for figure in chapter.figures:
            page.draw(figure, folder / "figures")
    return found


def _chapters(found: Study, tables: Mapping[str, Exhibit], shown: Sequence[str]) -> list[Chapter]:
    about = {
        "table-1": "Accuracy of LLaVA-SQA-7B as published, beside the same ablation here.",
        "table-2": "Accuracy of LLaVA-SQA-7B as published, beside the same ablation here.",
        "table-3": "Accuracy by subject, context and grade.",
        "table-4": "At each average ratio; the dense model's figure is the same in all rows.",
    }
    chapters = [exhibit.chapter(about[name]) for name, exhibit in tables.items()]
    if "figure-1" in shown:
        chapters.append(exhibits.figure_1(found))
    if "figure-3" in shown:
        chapters.append(exhibits.figure_3(found))
    return [*chapters, exhibits.measured(found)]


def _facts(chosen: Settings, tables: Mapping[str, Exhibit]) -> dict[str, Any]:
    return {"model": chosen.model, "tables": {name: asdict(one) for name, one in tables.items()}}
