"""What a run took, and how to make it again."""

from __future__ import annotations

from collections import Counter

from slimsearch.record import history
from slimsearch.reporting import findings
from slimsearch.reporting.markup import Chapter, Figure, Html, join, missing, paragraph, table, tag
from slimsearch.reporting.story import Story, digest
from slimsearch.reporting.words import command, count, duration, listed, size


def cost(story: Story) -> Chapter:
    """Time, memory and tokens."""
    body: list[Html | Figure] = [paragraph(_measurements(story)), paragraph(_memory(story))]
    spent = {name: seconds for name, seconds in story.times["stage"].items() if seconds >= 0.05}
    if spent:
        whole = sum(story.times["stage"].values())
        caption = f"Where the {duration(whole)} went; stages within others count for themselves."
        body.append(Figure("time", findings.stages(spent), join(caption)))
    else:
        rounds = sum(story.times["round"].values())
        said = f"Time by stage is kept when a run ends. Its rounds took {duration(rounds)} so far."
        body.append(missing(said))
    return Chapter("cost", "What it cost", tuple(body))


def _measurements(story: Story) -> str:
    scores = story.history.scores.values()
    by_share = Counter(score.share for score in scores)
    shares = [
        f"{number} on {'all' if share == 1 else f'{share:.1%}'} of the calibration"
        for share, number in sorted(by_share.items())
    ]
    said = f"{story.history.scored} candidates were scored {len(scores)} times: {listed(shares)}"
    calibration = story.scope.get("calibration")
    if calibration is None:
        return f"{said}. How many tokens that is, this run did not keep."
    whole = sum(calibration[kind]["tokens"] for kind in ("texts", "pairs"))
    read = sum(share * number * whole for share, number in by_share.items())
    return (
        f"{said}. The calibration is {calibration['texts']['rows']} segments of text and "
        f"{calibration['pairs']['rows']} pictures with {calibration['pairs']['answers']} "
        f"questions, {count(whole)} tokens; scoring read about {count(read)} tokens in all (where "
        f"a survivor's text loss was taken over, fewer)."
    )


def _memory(story: Story) -> str:
    if not story.machines:
        kept = "kept when a run ends" if story.history.end is None else "not kept with this run"
        return f"Peak memory and the machine are {kept}."
    names = listed(list(dict.fromkeys(name for name, _ in story.machines)))
    most = max(peak for _, peak in story.machines)
    return f"It ran on {names} and held {size(most)} at its highest, libraries included."


def again(story: Story) -> Chapter:
    """One command, and what must be the same for the same result."""
    print_ = story.history.fingerprint
    versions = print_.get("versions", {})
    rows = [["seed", str(story.settings.seed)]]
    rows += [[name, str(value)] for name, value in versions.items()]
    rows += [[key, str(print_[key])] for key in ("device", "dtype") if key in print_]
    rows += [
        [name, sha[:12]] for name, sha in print_.get("model", {}).items()
        if name.endswith(".safetensors")
    ]  # fmt: skip
    if "calibration" in print_:
        rows.append(["calibration data", str(print_["calibration"])[:12]])
    rows.append(["journal.jsonl", digest(story.folder / history.JOURNAL)])
    body: list[Html] = [
        paragraph("One command makes this run again:"),
        tag("pre", tag("code", command(story.settings))),
        paragraph(
            "With the same model, data, versions and kind of machine it ends with the same "
            "journal, byte for byte. What must agree (files by the beginning of their SHA-256):"
        ),
        table(("what", "value"), rows),
    ]
    if notes := story.scope.get("notes"):
        body.append(paragraph("The run said, before it began:"))
        body.append(tag("ul", *(tag("li", note) for note in notes)))
    return Chapter("again", "How to make it again", tuple(body))
