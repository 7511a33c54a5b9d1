"""Policies of every family, alone and drawn at random, as folders: against a LLaVA by hand.

Odd shapes, several pictures in a prompt, rows of different lengths side by side, and a cache.
"""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from plain_llava import PICTURE, PROMPT, TEXT, PlainLlava

from slimsearch.api import generating, pruning
from slimsearch.model.decoding import Prompt, Reading

SHAPES = {  # blocks, query heads, heads of keys; 4 x 4 tokens a picture
    "fifteen heads on three, tied": {"blocks": 4, "heads": 15, "kv_heads": 3, "tied": True},
    "three heads on one": {"blocks": 5, "heads": 3, "kv_heads": 1, "tied": False},
}
ALONE = (
    {"skip_block": {"start": 1, "interval": 2, "tokens": "T"}},
    {"skip_attention": {"blocks.*": 1, "blocks.0": 0, "tokens": "P+T"}},
    {"attention_cut": {"start": 0, "interval": 1, "window": 3}, "layer_cut": {"last": 2}},
    {"merge_tokens": {"keep": 0.0, "plus": 1}, "attention_cut": {"blocks.*": 1, "window": 2}},
)
SAID = 5
DRAWN = 2  # policies for each shape


@pytest.fixture(scope="module", params=SHAPES)
def dense(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("by hand")
    folder = tiny.llava(place / "model", side=4, width=30, **SHAPES[request.param])
    base = tiny.settings(
        folder, tiny.pairs(place / "pairs", 4, turns=1), tiny.text(place / "t.txt")
    )
    few = replace(base, pair_count=2, segments=1, segment_length=8)
    return PlainLlava(folder), few, SHAPES[request.param]["blocks"]


@pytest.mark.parametrize("number", range(len(ALONE) + DRAWN))
def test_what_a_policy_leaves_is_what_masks_leave(dense, number, tmp_path):
    plain, settings, blocks = dense
    tables = (*ALONE, *(drawn(seed, blocks) for seed in range(DRAWN)))[number]
    (tmp_path / "policy.toml").write_text(toml(tables), "utf-8")
    chosen = replace(settings, policy=str(tmp_path / "policy.toml"))
    pruning.prune(chosen, tmp_path / "cut", tiny.Notes())
    session = generating.open(tmp_path / "cut", "torch")[1].session
    heard = Heard(session)
    rows = [row(plain, session, pictures, tables) for pictures in (2, 0, 1)]
    said = Reading(heard).say([prompt for prompt, _ in rows], frozenset(), SAID)
    for number, ((prompt, pictures), tokens) in enumerate(zip(rows, said, strict=True)):
        kinds = [PICTURE if token == tiny.IMAGE else PROMPT for token in prompt.ids]
        ids = [*prompt.ids, *tokens]
        wanted = plain.logits(ids, [*kinds, *[TEXT] * SAID], pictures, tables)[-SAID - 1 : -1]
        found = np.stack([logits[number] for logits in heard.logits])
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4, rtol=1e-3)


class Heard:
    """A session that keeps what it gave."""

    def __init__(self, session):
        self._session, self.logits = session, []

    def __getattr__(self, name):
        return getattr(self._session, name)

    def step(self, *given):
        self.logits.append(self._session.step(*given))
        return self.logits[-1]


def row(plain, session, pictures, tables):
    """A prompt with so many pictures among its words, and what they are by hand."""
    torch.manual_seed(pictures)
    side = plain.tower.config.image_size
    ids, by_hand, shown = [tiny.BEGIN], [], torch.randn(pictures, 3, side, side)
    for pixels in shown:
        by_hand += (found := plain.picture(pixels, tables.get("merge_tokens")))
        ids += [*torch.randint(5, 300, (pictures,)).tolist(), *[tiny.IMAGE] * len(found)]
    ids += torch.randint(5, 300, (4 - pictures,)).tolist()
    features = np.concatenate(list(session.see(shown.numpy()))) if pictures else None
    return Prompt(ids, features, tiny.IMAGE), by_hand


def drawn(seed, blocks):
    """Three families at once."""
    draw = random.Random(seed)

    def where(last):
        lines = {f"blocks.{n}": 1 for n in draw.sample(range(last), draw.randint(1, last // 2))}
        return draw.choice([lines, {"start": draw.randrange(last), "interval": 2}])

    every = {
        **{f"skip_{what}": where(blocks) | draw.choice([{}, {"tokens": "T"}])
           for what in ("block", "ffn", "attention")},
        "parallel_ffn_attention": where(blocks),
        "parallel_blocks": where(blocks - 1) | draw.choice([{}, {"combine": "sum"}]),
        "attention_cut": where(blocks) | {"window": draw.choice([0, 1, 100])},
        "layer_cut": {"last": draw.randint(1, blocks - 1)},
        "merge_tokens": {"keep": draw.choice([0.0, 1.5]), "plus": draw.choice([0, 2])},
    }  # fmt: skip
    return {name: every[name] for name in sorted(draw.sample(sorted(every), 3))}


def toml(tables):
    lines = ["name = 'drawn'", "about = 'Drawn at random.'"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f'"{key}" = {json.dumps(value)}' for key, value in table.items())]
    return "\n".join(lines) + "\n"
