"""The model card of an exported folder: what it was, what went, how it did, how to run it.

Its head is the hub's metadata, evaluation results as a model-index among it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
HELD_OUT = {"perplexity": "perplexity", "accuracy": "exact match", "answer_loss": "answer loss"}
LONGEST_POLICY = 48  # rows; beyond them the zeros by layer tell more
SETTINGS = ("objective", "strategy", "segments", "segment_length", "pair_count", "seed")

SEEING = """\
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("FOLDER")
model = AutoModelForImageTextToText.from_pretrained("FOLDER")
content = [{"type": "image"}, {"type": "text", "text": "What is in the picture?"}]
prompt = processor.apply_chat_template(
    [{"role": "user", "content": content}], add_generation_prompt=True
)
inputs = processor(images=Image.open("picture.png"), text=prompt, return_tensors="pt")
print(processor.decode(model.generate(**inputs, max_new_tokens=64)[0], skip_special_tokens=True))
"""
READING = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
inputs = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
"""


def text(facts: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card of a model with this record, and what `slimsearch eval` found of it."""
    lines = [
        f"---\n{_metadata(facts, evaluations)}\n---",
        f"# {_base(facts)}, pruned by slimsearch" if _pruned(facts) else f"# {_base(facts)}",
        f"{facts['sparsity']:.1%} of the weights in the decoder's attention and MLP matrices are "
        f"zero.",
        *_drift(facts),
        *_how_it_came(facts),
        *_policy(facts),
        *_layers(facts),
        *_held_out(facts),
        *_evaluated(evaluations),
        *_forms(facts),
        *_to_run(facts),
        *_licence(facts),
    ]
    return "\n\n".join(lines) + "\n"


def licence_in(card: str) -> str:
    """The licence that a card's metadata names; '' where it names none."""
    head = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    named = re.search(r"^license(?:_name)?:[ \t]*(\S.*)$", head.group(1), re.M) if head else None
    return named.group(1).strip().strip("'\"") if named else ""


def _metadata(facts: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
    from huggingface_hub import ModelCardData

    base = str(facts["base"])
    return ModelCardData(
        base_model=base if HUB_ID.fullmatch(base) and not Path(base).exists() else None,
        license=facts.get("license") or None,
        library_name="transformers" if _loads(facts) else None,
        pipeline_tag="image-text-to-text" if facts.get("sees", True) else "text-generation",
        tags=["slimsearch", "pruned", "sparse"] if _pruned(facts) else ["slimsearch"],
        model_name=f"{_base(facts)}, {facts['sparsity']:.0%} sparse",
        eval_results=list(_entries(facts, evaluations)) or None,
    ).to_yaml()


def _entries(facts: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Every figure as an entry of a model-index."""
    from huggingface_hub import EvalResult

    kind = "image-text-to-text" if facts.get("sees", True) else "text-generation"
    for name, value in _own_row(facts).items():
        if value is not None:
            yield EvalResult(
                task_type=kind, dataset_type="held-out",
                dataset_name=f"held back from the calibration ({facts.get('calibration')})",
                metric_type=name, metric_name=HELD_OUT.get(name, name), metric_value=value,
            )  # fmt: skip
    for found in evaluations:
        name = " ".join(part for part in (found["task"], found["data"]["name"]) if part)
        some = any(found["choices"].get(key) for key in ("limit", "partial"))
        for metric, figure in found["figures"].items():
            if figure["value"] is not None:
                yield EvalResult(
                    task_type="text-generation" if found["task"] == "perplexity" else kind,
                    dataset_type=found["task"],
                    dataset_name=f"{name}, {found['count']} questions" if some else name,
                    metric_type=metric, metric_value=round(figure["value"], 4),
                )  # fmt: skip


def _drift(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts.get("drift"):
        yield "The search was interrupted and gone on with under other conditions:"
        yield "\n".join(f"- {difference}" for difference in facts["drift"])


def _how_it_came(facts: Mapping[str, Any]) -> Iterator[str]:
    rows = [("base model", _base(facts))]
    if "ratio" in facts:
        rows.append(("ratio asked for", f"{facts['ratio']:g}"))
    rows += [(key, str(facts[key])) for key in ("solver", "calibration") if key in facts]
    chosen = facts.get("fingerprint", {}).get("settings", {})
    rows += [
        (key.replace("_", " "), str(chosen[key])) for key in SETTINGS if chosen.get(key) not in
        (None, "", "auto") and (chosen[key] or key == "seed")
    ]  # fmt: skip
    yield _table(("", ""), rows)


def _policy(facts: Mapping[str, Any]) -> Iterator[str]:
    """What was chosen, where that is short; slimsearch.json has it all."""
    for family, table in facts.get("policy", {}).items():
        if len(table) <= LONGEST_POLICY:
            rows = [
                (name, value if isinstance(value, str) else f"{value:g}")
                for name, value in table.items()
            ]
            yield f"## Policy: {family.replace('_', ' ')}"
            yield _table(("", ""), rows)


def _layers(facts: Mapping[str, Any]) -> Iterator[str]:
    """The share of zeros, a row for each block and a column for each of its matrices."""
    blocks: dict[str, dict[str, float]] = {}
    for matrix, share in facts.get("matrices", {}).items():
        block, _, role = matrix.rpartition(".")
        blocks.setdefault(block, {})[role] = share
    if blocks and _pruned(facts):
        roles = list(dict.fromkeys(role for block in blocks.values() for role in block))
        yield "## Zeros by layer"
        yield _table(
            ("block", *roles),
            [
                (name.rpartition(".")[2], *(f"{block.get(role, 0):.3f}" for role in roles))
                for name, block in blocks.items()
            ],
        )


def _held_out(facts: Mapping[str, Any]) -> Iterator[str]:
    rows = facts.get("table", ())
    if rows:
        yield "## On data that was not calibrated on"
        yield _table(
            ("model", "sparsity", *HELD_OUT.values()),
            [
                (row["name"], f"{row['sparsity']:.3f}", *(
                    _number(row["figures"].get(key)) for key in HELD_OUT
                )) for row in rows
            ],
        )  # fmt: skip


def _evaluated(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (f"{found['task']} {found['data']['name']}".strip(), str(found["count"]), metric,
         _number(figure["value"]), f"{_number(figure['low'])} to {_number(figure['high'])}")
        for found in evaluations for metric, figure in found["figures"].items()
    ]  # fmt: skip
    if rows:
        yield "## Evaluated"
        yield _table(("task", "questions", "figure", "value", "95% interval"), rows)


def _forms(facts: Mapping[str, Any]) -> Iterator[str]:
    for form, recorded in facts.get("exports", {}).items():
        if about := recorded.get("about"):
            yield f"**{form}**: {about}"


def _to_run(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## How to run it"
    if _loads(facts):
        yield f"```python\n{SEEING if facts.get('sees', True) else READING}```"
    shown = " --image picture.png" if facts.get("sees", True) else ""
    yield f"```sh\nslimsearch generate FOLDER{shown} --prompt 'your question'\n```"


def _licence(facts: Mapping[str, Any]) -> Iterator[str]:
    named = facts.get("license")
    yield "## Licence"
    if named:
        yield f"These weights are made from {_base(facts)}: its licence, {named}, holds for them."
    else:
        yield (
            f"These weights are made from {_base(facts)}, whose licence holds for them too. The "
            f"folder that they were made from names none; look at that model's own card before you "
            f"pass them on."
        )


def _own_row(facts: Mapping[str, Any]) -> Mapping[str, float]:
    """The figures of the exported model itself: a table's last row."""
    rows = facts.get("table") or [{"figures": {}}]
    return rows[-1]["figures"]


def _base(facts: Mapping[str, Any]) -> str:
    base = str(facts["base"])
    return base if HUB_ID.fullmatch(base) else Path(base).name


def _pruned(facts: Mapping[str, Any]) -> bool:
    return facts["sparsity"] > 0.001


def _loads(facts: Mapping[str, Any]) -> bool:
    """Whether from_pretrained reads the folder, and makes of it what we do."""
    hf = facts.get("exports", {"hf": {}}).get("hf")
    return hf is not None and "note" not in hf


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
