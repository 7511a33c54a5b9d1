"""A level store that one run solved serves another, if all that it follows from is the same."""

import shutil
from dataclasses import replace

import pytest
import tiny

from slimsearch.api import runs
from slimsearch.surgery import level_store


@pytest.fixture
def searched(small, tmp_path, monkeypatch):
    """Runs a search; gives its result, and whether it solved its level store itself."""
    fills = []
    fill = level_store.fill
    monkeypatch.setattr(level_store, "fill", lambda *given: fills.append(1) or fill(*given))

    def run(name, **changes):
        before, watch = len(fills), tiny.Notes()
        chosen = {
            "stores": "auto",
            "rounds": 1,
            "finalists": 1,
            "out": str(tmp_path / name),
        } | changes
        found = runs.search(replace(small, **chosen), watch)
        return found, len(fills) > before, watch.notes

    return run


def test_a_second_run_takes_over_the_store_and_ends_the_same(searched, tmp_path):
    first, solved, _ = searched("one")
    assert solved
    second, solved, notes = searched("two")
    assert not solved
    assert any("earlier run" in note for note in notes)
    assert (second.policy, second.total, second.table) == (first.policy, first.total, first.table)
    shutil.rmtree(tmp_path / "level-stores")
    names = {file.name for file in (tmp_path / "two" / "levels").iterdir()}
    assert names == {"0000.safetensors", "0001.safetensors"}, "a run keeps its own"


def test_more_levels_serve_fewer_and_not_the_other_way(searched):
    searched("one", levels="0.4,0.5,0.6")
    assert not searched("two", levels="0.4,0.6")[1]
    assert searched("three", levels="0.3,0.5,0.7")[1]


@pytest.mark.parametrize(
    "changes",
    [{"solver": "wanda"}, {"damping": 0.1}, {"tokens": "text"}, {"seed": 1}, {"segments": 3},
     {"pair_count": 9}, {"stores": "none"}],
)  # fmt: skip
def test_whatever_it_follows_from_makes_it_another(searched, changes):
    searched("one")
    assert searched("two", **changes)[1]


def test_a_damaged_store_is_solved_anew_and_mended(searched, tmp_path):
    searched("one")
    (file,) = (tmp_path / "level-stores").glob("*/0001.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 16
    file.unlink()  # the first run's file stays as it was
    file.write_bytes(bytes(content))
    _, solved, notes = searched("two")
    assert solved
    assert any("0001.safetensors is damaged" in note for note in notes)
    assert not searched("three")[1]


def test_a_place_that_cannot_be_written_costs_only_the_sharing(searched, tmp_path):
    (tmp_path / "file").write_text("")
    _, solved, notes = searched("one", stores=str(tmp_path / "file" / "below"))
    assert solved
    assert any("not shared with other runs" in note for note in notes)
