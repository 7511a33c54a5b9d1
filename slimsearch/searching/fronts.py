"""The front of a run as files: front.json, a drawing, and each of its policies.

front/front.json    terms of each candidate     front/front.svg     the same, drawn
front/7-03.toml     the policy of candidate 7-03, ready for `slimsearch prune --policy`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slimsearch import files, policy
from slimsearch.drawing import Chart, Series, beside, plot, svg
from slimsearch.policy import Policy
from slimsearch.record.candidate import Score


def write(
    folder: Path, front: Sequence[Score], policies: Mapping[str, Policy], crowned: Score
) -> None:
    """Writes the front into a new folder; `policies` are by candidate."""
    files.remove(folder)  # of a crash before the run's last line
    rows = [
        {
            "candidate": score.candidate,
            "terms": score.terms,
            "sparsity": score.sparsity,
            "crowned": score.candidate == crowned.candidate,
        }
        for score in front
    ]
    with files.new_folder(folder) as place:
        for score in front:
            about = f"Candidate {score.candidate} of a front."
            found = {"sparsity": score.sparsity, **score.terms}
            text = policy.write(policies[score.candidate], score.candidate, about, found)
            (place / f"{score.candidate}.toml").write_text(text, "utf-8")
        (place / "front.json").write_text(files.to_json(rows, indent=2), "utf-8")
        drawn = beside([plot(chart) for chart in _charts(front, crowned)])
        (place / "front.svg").write_text(svg(drawn), "utf-8")


def _charts(front: Sequence[Score], crowned: Score) -> list[Chart]:
    """One chart for each two terms."""
    names = list(front[0].terms)
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    best = [score for score in front if score.candidate == crowned.candidate]
    return [
        Chart(
            f"{_spelt(b)} against {_spelt(a)}",
            _spelt(a),
            _spelt(b),
            [
                Series("front", [(s.terms[a], s.terms[b]) for s in front], len(names) == 2),
                Series("crowned", [(s.terms[a], s.terms[b]) for s in best], False),
            ],
        )
        for a, b in pairs
    ]


def _spelt(term: str) -> str:
    return term.replace("_", " ")
