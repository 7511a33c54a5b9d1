"""A whole run with the strategy pareto: a front in the run folder, and one of it crowned."""

import json
from dataclasses import replace

import pytest

from slimsearch import policy
from slimsearch.api import inputs, runs
from slimsearch.errors import SettingsError
from slimsearch.objectives.weight_norm import WeightNorm
from slimsearch.searching import picking


@pytest.fixture
def several(small):
    return replace(
        small, strategy="pareto", objective="text_kl + weight_norm", candidates=8, survivors=6,
        policy="per_matrix", skip_baselines=True,
    )  # fmt: skip


def test_a_run_leaves_a_front_and_crowns_its_knee(several, tmp_path, monkeypatch):
    monkeypatch.setattr(WeightNorm, "is_cost", True)  # it falls as more is removed
    done = runs.search(replace(several, out=str(tmp_path / "run")))
    place = tmp_path / "run" / "front"
    rows = json.loads((place / "front.json").read_text())
    assert len(rows) >= 3
    shares = [row["sparsity"] for row in rows]
    assert max(shares) - min(shares) > 0.02  # the ratio was free
    for a in rows:
        assert not any(
            all(b["terms"][t] < a["terms"][t] for t in a["terms"]) for b in rows
        )  # fmt: skip
        assert policy.read(place / f"{a['candidate']}.toml").tables
    (crowned,) = [row for row in rows if row["crowned"]]
    assert (
        crowned["candidate"]
        == json.loads((tmp_path / "run" / "model" / "slimsearch.json").read_text())["champion"]
    )
    assert (place / "front.svg").read_text().startswith("<svg")
    assert done.sparsity == pytest.approx(crowned["sparsity"], abs=1e-3)


def test_without_a_cost_the_ratio_is_held(several, tmp_path):
    runs.search(replace(several, out=str(tmp_path / "run"), pick="text_kl<=0"))
    rows = json.loads((tmp_path / "run" / "front" / "front.json").read_text())
    assert all(row["sparsity"] == pytest.approx(0.5, abs=0.011) for row in rows)


def test_objectives_and_picks_of_no_use_are_refused_before_loading(several):
    with pytest.raises(SettingsError, match="two or three"):
        inputs.gather(replace(several, objective="text_loss"))
    with pytest.raises(SettingsError, match="no term of the objective"):
        inputs.gather(replace(several, pick="answer_loss<=1"))
    assert picking.parse("knee", (), True).term == ""
