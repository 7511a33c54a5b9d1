"""A search over sparsity, skips and cuts together, under a budget in FLOPs, from end to end."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from slimsearch import policy
from slimsearch.api import counting, runs
from slimsearch.errors import PolicyError, SettingsError
from slimsearch.latency import stopwatch
from slimsearch.latency.table import Point
from slimsearch.latency.work import matrices_in
from slimsearch.model import checkpoint, loading
from slimsearch.record import history

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
    known = history.read(Path(chosen.out)).hints.allocations
    if strategy == "surrogate":  # begins at the best of sparsity alone too
        assert set(known["plain"][3:]) == {0}
        assert any(known["plain"][:3])


TIMED = """
name = "timed"
about = "Sparsity and cuts."

[layer_sparsity]
"blocks.*.*" = "0.0, 0.3, 0.5, 0.7, 0.9"

[layer_cut]
last = "0,1"

[merge_tokens]
keep = 1000.0
"""


@pytest.fixture
def timed(chosen, tmp_path, monkeypatch):
    """A search on a budget in times made up: of weights left, twice as long for a `slow` engine."""
    slow = 1.0

    def measure(parts, work, _):
        shapes = {stopwatch.shape_of(m.weight): m.weight.numel() for m in matrices_in(parts)}
        return tuple(
            Point(s, {shape: size * (1 - s) * slow for shape, size in shapes.items()},
                  500.0 * slow, 100.0)
            for s in (0.0, 1.0)
        )  # fmt: skip

    def turn(by):
        nonlocal slow
        slow = by
        monkeypatch.setenv("SLIMSEARCH_CACHE", str(tmp_path / f"cache {by}"))

    monkeypatch.setattr(stopwatch, "measure", measure)
    turn(1.0)
    file = tmp_path / "timed.toml"
    file.write_text(TIMED, "utf-8")
    made = replace(chosen, policy=str(file), budget="latency", latency_engine="native", ratio=0.5)
    return made, turn


def test_a_budget_in_latency_from_end_to_end(timed, tmp_path):
    """What the champion takes by the table, counted here, is half of what the dense model takes; a
    resumed search keeps the times that it began with."""
    made, turn = timed
    found = runs.search(made)
    vlm = loading.load(checkpoint.find(made.model), "cpu", "float32")
    tables, tokens = found.policy.tables, made.latency_tokens
    visual = 1  # only what stands out most
    taken = {"dense": 100.0 + 400.0, "found": 100.0}
    for index in range(3):
        last = index >= 3 - int(tables["layer_cut"]["last"])
        read = tokens - tiny.VISUAL_TOKENS + (0 if last else visual)
        left = 400.0 / 3
        for matrix in (m for m in vlm.matrices if m.block == f"blocks.{index}"):
            taken["dense"] += matrix.size
            left += matrix.size * (1 - float(tables["layer_sparsity"][matrix.name]))
        taken["found"] += left * read / tokens
    assert 1 - taken["found"] / taken["dense"] == pytest.approx(0.5, abs=0.015)
    journal = Path(made.out) / "journal.jsonl"
    kept = journal.read_bytes()
    ((name, facts),) = history.read(Path(made.out)).noted.items()
    assert (name, facts["points"][0]["rest"]) == ("budget", 500.0)
    place = tmp_path / "cut"
    shutil.copytree(made.out, place)
    settings_file = place / "settings.toml"
    settings_file.write_text(settings_file.read_text().replace(made.out, str(place)))
    lines = kept.splitlines(keepends=True)
    rounds = [n for n, line in enumerate(lines) if b'"kind":"round"' in line]
    (place / "journal.jsonl").write_bytes(b"".join(lines[: rounds[0] + 1]))
    for left in ("model", "best.toml"):
        target = place / left
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    turn(2.0)  # another machine, or a busy one
    assert runs.resume(place).policy == found.policy
    assert (place / "journal.jsonl").read_bytes() == kept


def test_what_no_prompt_holds_is_refused(chosen):
    with pytest.raises(SettingsError, match="no room"):
        runs.search(replace(chosen, latency_tokens=3))


@pytest.mark.parametrize("ratio", [0.01, 0.99])
def test_a_latency_out_of_reach_is_refused_with_what_can_be_had(timed, ratio):
    made, _ = timed
    with pytest.raises(PolicyError, match=r"remove 0\.\d+ to 0\.\d+ of the decoder's millisec"):
        runs.search(replace(made, ratio=ratio))
    assert not Path(made.out).exists()


def test_what_merges_nothing_takes_nothing(timed):
    """Of pictures: a budget must not guess."""
    made, _ = timed
    with pytest.raises(PolicyError, match="Give --pairs"):
        runs.search(replace(made, objective="paper"))


def test_a_target_out_of_reach_is_refused(chosen):
    with pytest.raises(PolicyError, match="of the decoder's FLOPs"):
        runs.search(replace(chosen, ratio=0.99))
