"""Tokens of the families that have a graph, and logits of every rotary variant, against torch."""

import json

import numpy as np
import pytest
import tiny_families

from slimsearch.api import exporting, generating
from slimsearch.api.exporting import Choices
from slimsearch.api.generating import Talk
from slimsearch.model import checkpoint, loading
from slimsearch.model.resident import Resident
from slimsearch.native import library
from slimsearch.native.session import NativeSession

pytestmark = pytest.mark.skipif(library.load() is None, reason="no C compiler here")

SHAPE = {"heads": 6, "kv_heads": 2, "head_dim": 10}  # odd for vectors, and not the width's
FAMILIES = {
    **dict.fromkeys(("llava", "vipllava", "internvl", "llama"), SHAPE),
    "mistral": {**SHAPE, "sliding_window": None},
    "qwen2": {**SHAPE, "use_sliding_window": False},
}
ROTARY = {
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_torch(family, tmp_path, pairs_file):
    folder = tiny_families.make(family, tmp_path / "model", **FAMILIES[family])
    exporting.export(str(folder), ["native"], tmp_path / "out", Choices(dtype="fp32"))
    sees = family in tiny_families.VISION
    said = {}
    for place, engine in ((tmp_path / "out", "native"), (folder, "torch")):
        _, speaker = generating.open(place, engine)
        talks = [Talk(pairs_file.parent / f"{n}.png" if sees else None) for n in range(2)]
        said[engine] = [
            answer.tokens
            for question in ("What colour is it?", "And how many are there?")
            for answer in speaker.ask(talks, [question] * 2, 6)
        ]
        speaker.session.close()
    assert said["native"] == said["torch"]


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_variants(kind, tmp_path):
    folder = tiny_families.make("llama", tmp_path / "model", **SHAPE)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": kind, "rope_theta": 10000.0, **ROTARY[kind]}
    (folder / "config.json").write_text(json.dumps(config))
    exporting.export(str(folder), ["native"], tmp_path / "out", Choices(dtype="fp32"))
    session = generating.open(tmp_path / "out", "native")[1].session
    assert isinstance(session, NativeSession)
    torch = Resident(loading.load(checkpoint.find(str(folder)), "cpu", "float32"))
    count = min(session.room, 120)
    ids = np.random.default_rng(0).integers(5, 60, (1, count))
    mask, places = np.ones_like(ids), np.arange(count)[None]
    found = session.step_all(session.embed(ids), mask, places)
    wanted = torch.step_all(torch.embed(ids), mask, places)
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
