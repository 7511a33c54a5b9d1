"""The arithmetic of foretelling, on times made up; and the cache."""

import pytest

from slimsearch.errors import RunError
from slimsearch.latency import table
from slimsearch.latency.table import Part, Point, Table


@pytest.fixture
def made_up() -> Table:
    key = {"processor": "a test's", "work": {"phase": "decode"}}
    return Table(key, (
        Point(0.0, {"4 x 4": 8.0, "8 x 4": 20.0}, 3.0),
        Point(0.5, {"4 x 4": 4.0, "8 x 4": 10.0}, 3.0),
        Point(0.9, {"4 x 4": 2.0, "8 x 4": 3.0}, 1.0),
    ))  # fmt: skip


def test_dense_and_measured_sparsities_are_their_sums(made_up):
    def both(sparsity):
        return [Part("4 x 4", 16, sparsity), Part("8 x 4", 32, sparsity)]

    assert made_up.predict(both(0.0)) == 31.0
    assert made_up.predict(both(0.5)) == 17.0
    assert made_up.predict(both(0.9)) == pytest.approx(6.0)


def test_between_them_it_is_a_line_and_beyond_them_flat(made_up):
    assert made_up.predict([Part("4 x 4", 16, 0.25)]) == 6.0 + 3.0
    assert made_up.predict([Part("4 x 4", 16, 0.7)]) == pytest.approx(3.0 + 2.0)
    assert made_up.predict([Part("4 x 4", 16, 0.99)]) == pytest.approx(2.0 + 1.0)


def test_each_matrix_counts_at_its_own_sparsity(made_up):
    mixed = [Part("4 x 4", 16, 0.5), Part("8 x 4", 32, 0.0)]
    assert made_up.predict(mixed) == 4.0 + 20.0 + 3.0  # the mean, 1/6, leaves the rest alone


def test_what_is_kept_is_found_again_and_only_under_its_key(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv(table.CACHE, str(tmp_path))
    assert table.cached(made_up.key) is None
    table.keep(made_up)
    assert table.cached(made_up.key) == made_up
    assert table.cached({**made_up.key, "processor": "another"}) is None
    (file,) = (tmp_path / "latency").iterdir()
    file.write_text("{")
    assert table.cached(made_up.key) is None


def test_what_a_run_keeps_says_the_same_again(made_up):
    again = table.from_dict(made_up.as_dict())
    parts = [Part("4 x 4", 16, 0.37), Part("8 x 4", 32, 0.81)]
    assert again.predict(parts) == made_up.predict(parts)


@pytest.mark.parametrize("noted", [{}, {"key": {}, "points": [{}]}, {"key": {}, "points": 3}])
def test_damaged_times_in_a_journal_are_refused(noted):
    with pytest.raises(RunError, match="journal keeps cannot be read"):
        table.recalled(noted)
