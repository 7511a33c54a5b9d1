"""slimsearch bench: every engine takes turns, ratios are of medians, a slower export is told so."""

import numpy as np
import pytest

from slimsearch.api import benching, exporting
from slimsearch.api.benching import DENSE, SPARSE, UNIFORM, Contestant
from slimsearch.contracts import Session
from slimsearch.errors import EngineError, InputError


class Still(Session):
    """Says nothing and takes no time."""

    room = 64

    def see(self, pixels):
        raise AssertionError("no picture is benched")

    def embed(self, ids):
        return np.zeros((*ids.shape, 4), np.float32)

    def step(self, embeds, mask, positions):
        assert mask.shape[1] == positions[0, -1] + 1
        return np.eye(8, dtype=np.float32)[:1]

    def forget(self):
        return None


def rows(engines: dict, length: int = 16) -> tuple[benching.Row, ...]:
    """Of contestants that took these seconds for a prompt and for a token, within a fifth."""
    contestants = [
        Contestant(
            model, engine, Still(), 8, 2**20,
            prefill={length: [prompt * 0.9, prompt, prompt * 1.1]},
            first={length: [prompt * 1.1, prompt * 1.2, prompt * 1.3]},
            decode={length: [token * 1.1, token, token * 0.9]},
        )
        for (model, engine), (prompt, token) in engines.items()
    ]  # fmt: skip
    return tuple(benching._rows(contestants))


def test_uniform_stands_between_and_is_never_what_to_use():
    found = rows({
        (SPARSE, "a"): (0.03, 0.03), (UNIFORM, "a"): (0.01, 0.01), (DENSE, "a"): (0.04, 0.04),
    })  # fmt: skip
    uniform = next(row for row in found if row.model == UNIFORM)
    assert uniform.prefill_of_own_dense == pytest.approx(4)
    assert all("use a on export" in line for line in benching._verdict(found))


def test_ratios_are_against_the_same_engine_and_the_best():
    found = rows({
        (SPARSE, "a"): (0.02, 0.02), (DENSE, "a"): (0.04, 0.02), (DENSE, "b"): (0.02, 0.01),
    })  # fmt: skip
    sparse = next(row for row in found if row.model == SPARSE)
    assert sparse.prefill_ms == pytest.approx(20)
    assert sparse.prefill_spread == pytest.approx(0.2)
    assert sparse.first_token_ms == pytest.approx(24)
    assert sparse.first_token_spread == pytest.approx(0.1 / 1.2 * 2)
    assert sparse.decode_per_s == pytest.approx(50)
    assert sparse.prefill_of_own_dense == pytest.approx(2)
    assert sparse.decode_of_own_dense == pytest.approx(1)
    assert sparse.prefill_of_best_dense == pytest.approx(1)
    assert sparse.decode_of_best_dense == pytest.approx(0.5)
    assert sparse.file_mib == 1


def test_a_slower_export_is_told_so_and_the_faster_engine_named():
    found = rows({(SPARSE, "zeros"): (0.06, 0.001), (DENSE, "plain"): (0.01, 0.02)})
    prefill, decode = benching._verdict(found)
    assert prefill.startswith("prefill, 16 tokens: use plain on against;")
    assert prefill.endswith("so slower.")
    assert decode.startswith("decode, 16 tokens: use zeros on export;")
    assert decode.endswith("so faster.")


@pytest.mark.parametrize(("seconds", "so"), [
    (0.011, "neither faster nor slower within their spread of 20%"),
    (0.0123, "slower"), (0.009, "neither faster nor slower within their spread of 20%"),
    (0.008, "faster"),
])  # fmt: skip
def test_what_the_spread_hides_is_not_claimed(seconds, so):
    prefill, _ = benching._verdict(
        rows({(SPARSE, "a"): (seconds, 0.01), (DENSE, "a"): (0.01, 0.01)})
    )
    assert prefill.endswith(f"so {so}.")


def test_one_round_proves_nothing():
    one, two = (
        Contestant(model, "a", Still(), 8, 1, prefill={8: [t]}, first={8: [t]}, decode={8: [t]})
        for model, t in ((SPARSE, 0.1), (DENSE, 0.9))
    )
    for line in benching._verdict(tuple(benching._rows([one, two]))):
        assert line.endswith("9.00 times as fast as the dense model at its best (a), which one "
                             "round does not prove.")  # fmt: skip


class Mortal(Still):
    """Dies at its tenth step."""

    steps = 0

    def step(self, embeds, mask, positions):
        self.steps += 1
        if self.steps == 10:
            raise EngineError("It was ended by SIGSEGV.")
        return super().step(embeds, mask, positions)


def test_an_engine_that_dies_on_the_way_is_left_out_and_the_others_go_on():
    notes: list[str] = []
    dying, other = (Contestant(SPARSE, n, s, 8, 1) for n, s in (("a", Mortal()), ("b", Still())))
    benching._time_length([dying, other], 8, 2, 4, notes, lambda: None)
    assert notes == ["a, export: It was ended by SIGSEGV."]
    assert not dying.prefill
    assert not dying.decode
    assert len(other.prefill[8]) == len(other.decode[8]) == 4


def test_memory_is_an_engines_own(monkeypatch):
    """What others take between its opening and its first prompt is not counted."""
    sizes = iter([700, 705, 30, 705, 709, 40])  # ours before, after, and the guest's, of each
    monkeypatch.setattr(benching, "_memory", lambda process: next(sizes))
    both = [Contestant(SPARSE, name, Still(), 8, 1, memory=100) for name in "ab"]
    benching._time_length(both, 8, 2, 1, [], lambda: None)
    assert [one.memory for one in both] == [135, 144]


def test_a_length_beyond_the_room_is_left_out_and_said():
    notes: list[str] = []
    one = Contestant(SPARSE, "a", Still(), 8, 1)
    benching._time_length([one], 63, 2, 1, notes, lambda: None)
    assert not one.prefill
    assert "63 + 2 tokens are more than its 64" in notes[0]


def test_a_real_export_in_torch(llama, tmp_path):
    exporting.export(str(llama), ["hf"], tmp_path / "dense")
    found = benching.bench(tmp_path / "dense", tmp_path / "dense", [8, 12], 2, 1, 2)
    engines = {(row.model, row.engine, row.prompt) for row in found.rows}
    for dtype in benching.TORCH_DTYPES:
        for length in (8, 12):
            assert {
                (SPARSE, f"torch {dtype}", length),
                (DENSE, f"torch {dtype}", length),
            } <= engines
    for row in found.rows:
        assert row.prefill_ms > 0
        assert row.file_mib > 0
        assert row.first_token_ms >= row.prefill_ms
    assert len(found.verdict) == 4
    assert "<svg" in benching.draw(found)


def test_a_folder_that_nothing_runs_is_refused(llama, tmp_path):
    exporting.export(str(llama), ["hf"], tmp_path / "out")
    for file in (tmp_path / "out").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match="No engine here runs"):
        benching.bench(tmp_path / "out", None, [8], 2)
