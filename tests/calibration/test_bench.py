"""Real files: Penn Treebank, WikiText-2, 160 LLaVA pre-training records, our own questions."""

import os
from pathlib import Path

import pytest

from slimsearch.calibration import gather
from slimsearch.settings import Settings

ROOT = Path(__file__).parents[2]
BENCH = Path(os.environ.get("SLIMSEARCH_BENCH", ROOT / "../shared/bench")).resolve()

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(
        not BENCH.is_dir(), reason=f"no benchmark data at {BENCH}; set SLIMSEARCH_BENCH"
    ),
]


def test_penn_treebank_is_found_where_the_user_stands(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(BENCH / "text")
    found = gather(Settings(model="somewhere"))
    assert found.text.startswith("aer banknote berlitz")
    assert found.held_text.startswith("consumers may want to move their telephones")
    assert (found.text.count("\n"), found.held_text.count("\n")) == (0, 0)
    assert found.text.count(" ") + 1 == 887_521  # words of the training text, as published


def test_wikitext_spares_its_last_tenth():
    found = gather(Settings(model="somewhere", calibration=str(BENCH / "text/wikitext2.valid.txt")))
    assert "Homarus gammarus" in found.text
    assert 0.099 < len(found.held_text) / (len(found.text) + len(found.held_text)) <= 0.1


@pytest.mark.parametrize(
    ("file", "count", "used", "held", "turns"),
    [
        ("llava_pretrain/blip_laion_cc_sbu_160.json", 64, 64, 96, 1),
        ("vqa/calibration.json", 100, 100, 28, 5),
        ("vqa/dev.json", 64, 64, 200, 4),
    ],
)
def test_llava_records(file: str, count: int, used: int, held: int, turns: int):
    found = gather(Settings(pairs=str(BENCH / file), pair_count=count))
    assert (len(found.pairs), len(found.held_pairs)) == (used, held)
    for pair in found.pairs + found.held_pairs:
        assert len(pair.turns) == turns
        assert not any("<image>" in turn.question for turn in pair.turns)
        assert all(turn.answer for turn in pair.turns)
        assert pair.open().mode == "RGB"
    pictures = [{pair.picture for pair in side} for side in (found.pairs, found.held_pairs)]
    assert not pictures[0] & pictures[1]
