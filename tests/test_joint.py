"""A search over sparsity, skips and cuts together, under a budget in FLOPs, from end to end."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from slimsearch import policy
from slimsearch.api import counting, runs
from slimsearch.errors import PolicyError, SettingsError

JOINT = """
name = "small"
about = "Everything at once."

[layer_sparsity]
"blocks.*" = "-0.50..+0.30 by 0.10"

[skip_ffn]
"blocks.*" = "0,1"

[layer_cut]
last = "0,1"
"""


@pytest.fixture
def chosen(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(JOINT, "utf-8")
    made = tiny.settings(
        tiny.llava(tmp_path / "model", blocks=3), tiny.pairs(tmp_path / "pairs"),
        tiny.text(tmp_path / "text.txt"),
    )  # fmt: skip
    return replace(
        made, policy=str(file), budget="flops", latency_tokens=20, ratio=0.4,
        out=str(tmp_path / "run"),
    )  # fmt: skip


@pytest.mark.parametrize("strategy", ["surrogate", "optimal"])
def test_a_joint_search_ends_on_its_budget(chosen, strategy):
    found = runs.search(replace(chosen, strategy=strategy))
    assert set(found.policy.tables) == {"layer_sparsity", "skip_ffn", "layer_cut"}
    best = Path(chosen.out) / "best.toml"
    told = policy.read(best).tables
    rows = counting.report(chosen, str(best), [tiny.VISUAL_TOKENS], 20 - tiny.VISUAL_TOKENS).rows
    parts = rows[0].prompt.parts
    dense = counting.report(chosen, "", [tiny.VISUAL_TOKENS], 20 - tiny.VISUAL_TOKENS).rows[0]
    decoder = [name for name in parts if name not in ("vision tower", "projector")]
    left = sum(parts[name].left for name in decoder)
    whole = sum(dense.prompt.parts[name].dense for name in decoder)
    assert 1 - left / whole == pytest.approx(0.4, abs=0.011)
    assert told == found.policy.tables
    assert "uniform sparsegpt" in [row.name for row in found.table]


def test_what_no_prompt_holds_is_refused(chosen):
    with pytest.raises(SettingsError, match="no room"):
        runs.search(replace(chosen, latency_tokens=3))


def test_a_target_out_of_reach_is_refused(chosen):
    with pytest.raises(PolicyError, match="of the decoder's FLOPs"):
        runs.search(replace(chosen, ratio=0.99))
