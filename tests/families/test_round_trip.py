"""Load, prune, save, load with plain transformers: names, dtypes, shards and bytes from outside."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tiny
import tiny_families
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from slimsearch.api import pruning
from slimsearch.searching.watch import Watch

FAMILIES = [*tiny_families.VISION, *tiny_families.TEXT]
BESIDE = "preprocessor_config.json"


def header(file) -> dict:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])


def raw(folder) -> dict[str, bytes]:
    """Every tensor's bytes, by shard and name."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        content = file.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        for key, facts in header(file).items():
            if key != "__metadata__":
                first, last = (start + place for place in facts["data_offsets"])
                found[f"{file.name}: {key}"] = content[first:last]
    return found


@pytest.mark.parametrize(
    ("family", "stream"),
    [*((family, True) for family in FAMILIES), ("llava", False), ("qwen3_vl", False)],
)
def test_what_is_saved_is_what_was_there_but_for_the_pruned(family, tmp_path, stream):
    odd = {"kv_heads": 3, "tied": True} if stream else {}
    source = tiny_families.make(
        family, tmp_path / "source", dtype=torch.bfloat16, shards=True, **odd
    )
    (source / BESIDE).write_text('{"do_resize": true}') if family == "llava" else None
    settings = replace(
        tiny.settings(source, "none", tiny.text(tmp_path / "prose.txt", 600)),
        policy="uniform", ratio=0.5, solver="magnitude", stream=stream, segments=2,
    )  # fmt: skip
    pruning.prune(settings, tmp_path / "out", Watch())
    shards = sorted(file.name for file in source.glob("*.safetensors"))
    assert shards == sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 1
    for name in shards:
        assert header(source / name) == header(tmp_path / "out" / name)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes(), file.name
    before, after = raw(source), raw(tmp_path / "out")
    changed = {key for key in before if before[key] != after[key]}
    recorded = json.loads((tmp_path / "out" / "slimsearch.json").read_text())["matrices"]
    assert len(changed) == len(recorded)
    for key in changed:
        numbers = torch.frombuffer(bytearray(after[key]), dtype=torch.bfloat16)
        assert abs(int((numbers == 0).sum()) - numbers.numel() / 2) <= 1
    kind = AutoModelForCausalLM if family in tiny_families.TEXT else AutoModelForImageTextToText
    again, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert again.dtype == torch.bfloat16
