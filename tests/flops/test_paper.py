"""Table 2 of the third paper: every printed cell, by its own accounting."""

import pytest

from slimsearch.flops import count, paper
from slimsearch.routes.route import plain
from slimsearch.routes.traffic import prompt


def test_every_cell_is_within_one_percent():
    cells = paper.table()
    assert len(cells) == 15
    assert max(abs(cell.formula / cell.published - 1) for cell in cells) < 0.01


def test_rounded_as_it_is_printed_every_cell_is_within_a_quarter_of_a_percent():
    for cell in paper.table():
        assert abs(round(cell.formula, 1) / cell.published - 1) < 0.0025


def test_the_dense_model_is_counted_alike_by_both():
    dense = [cell for cell in paper.table() if cell.model == "LLaVA-1.5"]
    assert all(cell.formula == pytest.approx(cell.computed, rel=0.005) for cell in dense)


def test_attention_cut_computes_every_projection():
    cut = [cell for cell in paper.table() if cell.model == "AttnCut"]
    assert all(cell.computed > 1.05 * cell.formula for cell in cut)


def test_the_decoder_is_that_of_the_digest():
    weights = sum(matrix.size for matrix in paper.VICUNA.matrices)
    assert weights == pytest.approx(12.69e9, rel=1e-3)
    one = count.decoder(paper.VICUNA, prompt(plain(40), paper.VICUNA.spans, 0, 1), {})
    assert count.total(one).dense == pytest.approx(2 * (weights + 5120 * 32000), rel=1e-3)
