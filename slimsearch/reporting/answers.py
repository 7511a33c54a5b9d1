"""Sample answers with their pictures, dense beside pruned."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from slimsearch.calibration.pictures import load_picture
from slimsearch.errors import SlimsearchError
from slimsearch.record import results
from slimsearch.reporting.markup import Chapter, Html, missing, paragraph, tag
from slimsearch.reporting.story import Story

MOST = 6  # answers of a task that are shown
WIDEST = 336  # pixels of a picture on the page
SMALL = 128  # pictures up to here are enlarged without smoothing
LONGEST = 600  # letters of a question or answer


def samples(story: Story) -> Chapter:
    """What the run kept, then what evaluations have of both models."""
    body = [*_kept(story), *_evaluated(story)]
    return Chapter("answers", "What it answers", tuple(body))


def _kept(story: Story) -> Iterator[Html]:
    told = story.history.samples
    if told is None:
        if story.history.end is None:
            yield missing("Sample answers are taken when a run ends.")
        elif story.settings.skip_baselines:
            yield missing("Sample answers were not taken: the run skipped its baselines.")
        else:
            yield missing(
                "Sample answers were not taken: there were no held-out pairs, or an earlier "
                "release made this run."
            )
        return
    yield paragraph(
        f"Of {told['asked']} questions about held-out pictures the dense and the pruned model "
        f"answer {told['differing']} differently, by the likeliest word at every place. Below are "
        f"up to {MOST}, those that differ first; both answer greedily."
    )
    yield tag(
        "div",
        *(
            _card(
                _picture(story.folder / "samples" / sample["picture"]), sample["question"],
                {"dense": sample["dense"], "pruned": sample["pruned"]}, sample["expected"],
            )
            for sample in told["samples"]
        ),
        class_="cards",
    )  # fmt: skip


def _evaluated(story: Story) -> Iterator[Html]:
    """Questions of tasks that both the dense model and the champion answered, where they differ."""
    for task, some in story.tasks.items():
        by_model = {result["model"]["name"]: result for result in some}
        if not {results.DENSE, results.CHAMPION} <= by_model.keys():
            continue
        dense = {line["id"]: line for line in results.lines_of(by_model[results.DENSE])}
        pruned = {line["id"]: line for line in results.lines_of(by_model[results.CHAMPION])}
        shared = [name for name in dense if name in pruned and "answer" in dense[name]]
        apart = [name for name in shared if dense[name]["answer"] != pruned[name]["answer"]]
        if not shared:
            continue
        yield tag("h3", task)
        yield paragraph(f"{len(apart)} of {len(shared)} answers differ; some of them:")
        yield tag("div", *_cards(apart[:MOST], dense, pruned), class_="cards")


def _cards(
    names: Sequence[str], dense: Mapping[str, Any], pruned: Mapping[str, Any]
) -> Iterator[Html]:
    for name in names:
        line = dense[name]
        wanted = ", ".join(map(str, line.get("expected") or ())) or None
        place = line.get("picture")
        shown = _picture(Path(place)) if place else None
        said = {"dense": line["answer"], "pruned": pruned[name]["answer"]}
        yield _card(shown, line["prompt"], said, wanted)


def _card(shown: Html | None, question: str, said: Mapping[str, str], wanted: str | None) -> Html:
    alike = len(set(said.values())) == 1
    answers = [
        tag("div", tag("dt", model), tag("dd", _short(answer) or "(nothing)"))
        for model, answer in said.items()
    ]
    expected = [tag("div", tag("dt", "expected"), tag("dd", _short(wanted)))] if wanted else []
    verdict = tag("span", "same answer" if alike else "differs",
                  class_="alike" if alike else "differs")  # fmt: skip
    pictured = [shown] if shown is not None else []
    return tag(
        "article", *pictured, tag("p", _short(question)), tag("dl", *answers, *expected), verdict
    )


def _picture(file: Path) -> Html:
    """A picture within the page; that it cannot be read is said in its place."""
    try:
        shown = load_picture(file, file.name)
    except (SlimsearchError, OSError):
        return tag("p", f"The picture {file.name} cannot be read any more.", class_="missing")
    small = max(shown.size) <= SMALL
    shown.thumbnail((WIDEST, WIDEST))
    content = BytesIO()
    shown.save(content, "PNG" if small else "JPEG", quality=85)
    data = b64encode(content.getvalue()).decode()
    kind = "png" if small else "jpeg"
    return tag("img", src=f"data:image/{kind};base64,{data}", alt="the picture asked about",
               class_="small" if small else "")  # fmt: skip


def _short(text: str) -> str:
    """What a model said, whatever it was, as it can be shown."""
    odd = "\N{REPLACEMENT CHARACTER}"
    shown = "".join(c if c.isprintable() or c == "\n" else odd for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ..."
