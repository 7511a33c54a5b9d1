"""README's table of families: every tick is earned here, by a tiny random model of the family.

`PYTHONPATH=tests python tests/families/test_table.py` prints the table.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tiny
import tiny_families
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from slimsearch import artefact
from slimsearch.api import exporting, generating, pruning, runs
from slimsearch.api.generating import Talk
from slimsearch.errors import ModelError
from slimsearch.model import checkpoint, senses
from slimsearch.plugins import find
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

README = Path(__file__).parents[2] / "README.md"
FAMILIES = [*tiny_families.VISION, *tiny_families.TEXT]
COLUMNS = ("prune", "search", "projector step", "export HF", "export ONNX", "deepsparse")
SIZES = ((16, 16), (40, 20), (20, 45), (33, 33))
QUESTION, STEPS = "What colour is it?", 6
# Of odd sizes an export for DeepSparse tries one block out, which takes long: what goes into graphs
# has none here, other tests do.
EVEN = {
    "heads": 4, "kv_heads": 2, "head_dim": 8, "hidden_size": 32, "intermediate_size": 48
}  # fmt: skip
SHAPES = {
    **dict.fromkeys(("llava", "vipllava", "internvl", *tiny_families.TEXT), EVEN),
    "mistral": {**EVEN, "sliding_window": None},
    "qwen2": {**EVEN, "use_sliding_window": False},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_says_what_was_earned(family, tmp_path):
    assert table()[family] == earned(family, tmp_path)


def test_the_table_has_every_family():
    assert list(table()) == FAMILIES


def table() -> dict[str, list[str]]:
    """README's ticks, by family."""
    section = README.read_text("utf-8").split("\n## Families\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    return {
        family: [
            column for column, cell in zip(COLUMNS, cells.split("|"), strict=True) if cell.strip()
        ]
        for family, cells in rows
    }


def earned(family: str, place: Path) -> list[str]:
    """The columns that a family has, tried one after the other."""
    source = tiny_families.make(family, place / "source", **SHAPES.get(family, {}))
    settings = chosen(source, place)
    pruned = pruning.prune(replace(settings, policy="uniform"), place / "pruned", Watch())
    check_pruned(source, place / "pruned", pruned.sparsity)
    found = runs.search(replace(settings, out=str(place / "run")))
    columns = ["prune", *searched(found)]
    exporting.export(str(place / "run"), ["hf"], place / "hf")
    columns += ["export HF"] if spoken(place / "hf", "torch") == generated(place / "hf") else []
    for column, form, engine in (
        ("export ONNX", "onnx", "onnxruntime"), ("deepsparse", "deepsparse", "deepsparse"),
    ):  # fmt: skip
        folder = place / form
        try:
            exporting.export(str(place / "hf"), [form], folder, exporting.Choices(room=96))
        except ModelError:
            continue
        absent = find("runtimes", engine)().absent()
        if absent or spoken(folder, engine) == generated(place / "hf"):
            columns.append(column)
    return columns


def chosen(source: Path, place: Path) -> Settings:
    """A search of about a second, on pictures of several sizes."""
    sees = checkpoint.find(str(source)).model_type in tiny_families.VISION
    file = tiny.pairs(place / "pairs", 12, turns=2)
    for number in range(12):
        picture(number, *SIZES[number % len(SIZES)]).save(place / "pairs" / f"{number}.png")
    return replace(
        tiny.settings(source, file if sees else "none", tiny.text(place / "prose.txt")),
        pair_count=8, rounds=2, candidates=3, survivors=2, finalists=1, policy="per_layer",
    )  # fmt: skip


@cache
def picture(number: int, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def check_pruned(source: Path, folder: Path, sparsity: float) -> None:
    """By the bytes on disk: half of every matrix is zero, and nothing else has changed."""
    before, after = tensors(source), tensors(folder)
    assert list(before) == list(after)
    pruned = json.loads((folder / artefact.RECORD).read_text("utf-8"))["matrices"]
    changed = {key for key in before if before[key] != after[key]}
    assert len(changed) == len(pruned)
    assert sparsity == pytest.approx(0.5, abs=0.01)
    for key in changed:
        kind, shape, content = after[key]
        assert (kind, shape) == before[key][:2]
        zeros = int((np.frombuffer(content, np.float32) == 0).sum())
        assert zeros == pytest.approx(len(content) / 8, abs=1)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name


def tensors(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Every tensor of a folder as its headers have it: dtype, shape, bytes."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        for key, facts in header.items():
            if key != "__metadata__":
                start, stop = (8 + length + place for place in facts["data_offsets"])
                found[key] = (facts["dtype"], facts["shape"], content[start:stop])
    return found


def searched(found: runs.Result) -> list[str]:
    """Whether candidates were scored, and the projector stepped and was judged on pictures."""
    assert len(found.rounds) == 2
    assert np.isfinite(found.total)
    assert found.sparsity == pytest.approx(0.5, abs=0.02)
    steps = [done.step for done in found.rounds if done.step is not None]
    moved = [step for step in steps if step.before is not None and step.after != step.before]
    return ["search", "projector step"] if moved else ["search"]


def spoken(folder: Path, engine: str) -> list[int]:
    """What the model says in an engine."""
    found = artefact.find(folder)
    shown = folder.parent / "pairs" / "1.png" if found.sees else None
    _, speaker = generating.open(folder, engine)
    try:
        (answer,) = speaker.ask([Talk(shown)], [QUESTION], STEPS)
    finally:
        speaker.session.close()
    return list(answer.tokens)


def generated(folder: Path) -> list[int]:
    """What transformers says, by itself from the folder to the answer."""
    kind = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
    if kind in tiny_families.TEXT:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        inputs = AutoTokenizer.from_pretrained(folder)(QUESTION, return_tensors="pt")
    else:
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        processor = senses.processor(checkpoint.find(str(folder)))
        asked = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        text = "<image>" + QUESTION
        if kind != "paligemma":
            text = processor.apply_chat_template(
                [{"role": "user", "content": asked}], add_generation_prompt=True
            )
        more = {"return_mm_token_type_ids": True} if "qwen" in kind else {}
        inputs = processor(
            images=[picture(1, *SIZES[1])], text=[text], return_tensors="pt",
            add_special_tokens=not text.startswith("<s>"), **more,
        )  # fmt: skip
        inputs.pop("labels", None)
    made = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    said = made[0, inputs["input_ids"].shape[1] :].tolist()
    end = model.generation_config.eos_token_id
    return said[: said.index(end)] if end in said else said


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"| family | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for family in FAMILIES:
        with TemporaryDirectory() as place:
            ticks = earned(family, Path(place))
        print(f"| `{family}` | {' | '.join('✓' if c in ticks else '' for c in COLUMNS)} |")
