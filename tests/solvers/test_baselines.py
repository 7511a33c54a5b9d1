"""Which weights wanda, magnitude and random choose; exact counts where scores are equal."""

import torch

from slimsearch.solvers.magnitude import Magnitude
from slimsearch.solvers.magnitude_row import MagnitudeRow
from slimsearch.solvers.random import Random
from slimsearch.solvers.wanda import Wanda
from slimsearch.surgery.hessian import Hessian
from slimsearch.surgery.masks import lowest, lowest_of_groups, lowest_per_row

WEIGHTS = torch.tensor([[1.0, -2.0, 3.0, 4.0], [-10.0, 20.0, 30.0, 40.0]])
HESSIAN = Hessian(torch.diag(torch.tensor([100.0, 1.0, 1.0, 0.01])), 5)


def removed(solver, level):
    (pruned,) = solver.prune(WEIGHTS, HESSIAN, [level])
    kept = pruned.weights != 0
    assert torch.equal(pruned.weights[kept], WEIGHTS[kept])
    return (~kept).int().tolist()


def test_magnitude_ranks_the_whole_matrix():
    assert removed(Magnitude(), 0.5) == [[1, 1, 1, 1], [0, 0, 0, 0]]


def test_magnitude_row_ranks_each_row():
    assert removed(MagnitudeRow(), 0.5) == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_wanda_weighs_by_the_input():
    assert removed(Wanda(), 0.5) == [[0, 1, 0, 1], [0, 1, 0, 1]]


def test_random_depends_on_seed_and_shape_alone():
    weights, hessian = torch.randn(30, 40), Hessian(torch.eye(40), 9)
    one, two = (Random(seed).prune(weights, hessian, [0.3, 0.6]) for seed in (1, 2))
    again = Random(1).prune(torch.rand(30, 40) + 1, hessian, [0.3])
    assert torch.equal(one[0].weights == 0, again[0].weights == 0)
    assert not torch.equal(one[0].weights == 0, two[0].weights == 0)
    assert not one[1].weights[one[0].weights == 0].any(), "levels are nested"


def test_equal_scores_go_in_order_of_their_index():
    scores = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    assert lowest(scores, 4).int().tolist() == [[1, 1, 1], [0, 1, 0]]
    assert lowest(scores, 0).sum() == 0
    assert lowest(scores, 6).sum() == 6
    odd, none = lowest_per_row(scores, [3, 0])
    assert odd.int().tolist() == [[0, 1, 0], [1, 1, 0]]
    assert none.sum() == 0
    assert lowest_of_groups(torch.ones(1, 4), (1, 2)).int().tolist() == [[1, 0, 1, 0]]
