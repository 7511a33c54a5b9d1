"""Our search beside the baselines, and with one part of it left out at a time.

Every row is a run with the same model, calibration and evaluation, and every search plays as many
rounds; what differs is one setting or two. Rows that only exist where a plug-in is on the shelf are
made from the shelf.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from slimsearch import files, plugins, shelf
from slimsearch.api import studying
from slimsearch.api.studying import Outcome, Trial
from slimsearch.searching import objective
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings, strategy_of

WANDA = {"prompt": "pictures and questions", "text": "text and answers"}  # scores from these alone
ROUTED = {  # policies of the shelf that change how blocks run -> the row's name
    "skip_half": "skip-block", "skip_answers": "skip-block-answers",
    "parallel": "parallel-ffn-attention", "attention_cut": "attention-cut",
    "merge_tokens": "merge-tokens",
}  # fmt: skip
FRESH: dict[str, Any] = {"projector_start": "fresh", "projector_rate": 1e-3}  # as LLaVA begins
COLUMNS = ("row", "sparsity", "perplexity", "VQA accuracy", "seconds", "peak memory", "what it is")


def trials(chosen: Settings) -> list[Trial]:
    """Every row: baselines without a search, other searches, ours, and ours with parts left out."""
    own = replace(chosen, skip_baselines=True, patience=max(0, chosen.patience))
    untuned: dict[str, Any] = {"projector_steps": 0, "polish": "none"}
    found = [
        Trial(
            f"uniform-{solver}",
            f"every matrix at the ratio, by {solver}",
            replace(own, policy="uniform", solver=solver, **untuned),
        )
        for solver in plugins.names("solvers")
    ]
    found += [
        Trial(
            f"uniform-{chosen.solver}-text",
            "the same, calibrated on text alone, as published",
            replace(own, policy="uniform", objective="paper", **untuned),
        )
    ]
    found += _recipes(own, untuned)
    for name in plugins.names("strategies"):
        if name == strategy_of(chosen) or plugins.find("strategies", name).weighs_terms:
            continue
        about = plugins.about("strategies", name).rstrip(".")
        found += [
            Trial(name, about, replace(own, strategy=name, **untuned)),
            Trial(f"{name}-polished", f"{name}, then trained as ours", replace(own, strategy=name)),
        ]
    normed = "weight_norm" in objective.weights(own, pairs=own.pairs != "none")
    return [
        *found,
        Trial("searched", f"ours, by {strategy_of(chosen)}", own),
        Trial("no-norm-term", "ours without the norm term", replace(own, eta=0.0))
        if normed
        else Trial("norm-term", "ours with the paper's norm term", replace(own, eta=objective.ETA)),
        Trial("no-projector", "ours, the projector left alone", replace(own, projector_steps=0)),
        Trial("no-weights", "ours, kept weights left alone", replace(own, polish="gains")),
        Trial("no-gains", "ours, the projector alone trained", replace(own, polish="projector")),
        Trial("even-weights", "ours with every c_m alike", replace(own, neighbours=0)),
        Trial("text-only", "ours on text alone", replace(own, objective="paper")),
        Trial("stitched", "ours without exact finish", replace(own, finalists=0)),
    ]


def _recipes(own: Settings, untuned: dict[str, Any]) -> list[Trial]:
    """The skipping paper's Table 1: other masks and skips, a structured baseline, and all of them
    with the projector trained beside what is left ("+ Tr"), from the old one or from scratch."""
    plain = [
        Trial(
            f"uniform-wanda-{tokens}",
            f"uniform-wanda, scored by {meant} alone",
            replace(own, policy="uniform", solver="wanda", tokens=tokens, **untuned),
        )
        for tokens, meant in WANDA.items()
    ]
    plain += [
        Trial(row, shelf.about("policies", name).rstrip("."), replace(own, policy=name, **untuned))
        for name, row in ROUTED.items()
    ]
    solved = [
        Trial(f"uniform-{solver}", "", replace(own, policy="uniform", solver=solver))
        for solver in plugins.names("solvers")
    ]
    narrowed = Trial(
        "narrowed", "heads and FFN channels gone, in LLM-Pruner's manner: a smaller dense model",
        replace(own, **untuned), "narrow",
    )  # fmt: skip
    trained: dict[str, Any] = {"projector_steps": own.projector_steps or 1, "polish": "projector"}
    several = [
        Trial(f"{row.name}-{name}", f"{row.name}, then {said}",
              replace(row.settings, **trained, **more), row.command)
        for name, said, more in (("trained", "the projector trained", {}),
                                 ("fresh", "a projector trained from scratch", FRESH))
        for row in [*solved, *plain, narrowed]
    ]  # fmt: skip
    return [*plain, narrowed, *several]


def compare(chosen: Settings, only: str, folder: Path, watch: Watch) -> list[Outcome]:
    """Runs the rows, and leaves compare.json and compare.md in the folder."""
    rows = studying.chosen(trials(chosen), only)
    found = studying.carry_out(rows, folder, watch)
    done = next(row for row in rows if row.name == found[0].name)
    found = [studying.dense(done, folder), *found]
    facts = {"model": chosen.model, "ratio": chosen.ratio, "rows": studying.as_dicts(found)}
    files.write(folder / "compare.json", files.to_json(facts, indent=2).encode())
    text = f"# {chosen.model} at {chosen.ratio:g}\n\n" + studying.markdown(COLUMNS, cells(found))
    files.write(folder / "compare.md", text.encode())
    return found


def cells(outcomes: list[Outcome]) -> list[list[str]]:
    """The table as text, a row for each outcome."""
    return [
        [
            outcome.name,
            f"{outcome.sparsity:.3f}",
            _shown(outcome.figures.get("perplexity"), "{:.2f}"),
            _shown(outcome.figures.get("accuracy"), "{:.1%}"),
            f"{outcome.seconds:.0f}" if outcome.seconds else "-",
            f"{outcome.peak_bytes / 2**30:.2f} GiB" if outcome.peak_bytes else "-",
            outcome.about,
        ]
        for outcome in outcomes
    ]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
