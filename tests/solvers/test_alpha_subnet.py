"""One mask for several calibration sets, against a plain loop over weights and sets."""

import pytest
import torch

from slimsearch.solvers.alpha_subnet import AlphaSubnet
from slimsearch.solvers.wanda import Wanda
from slimsearch.surgery.hessian import Hessian

ROWS, COLUMNS = 6, 24


def sets(seed: int = 0) -> dict[str, torch.Tensor]:
    """Inputs [tokens, columns] of three sets that differ in length, loudness and busy columns."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for number, (name, tokens) in enumerate({"text": 300, "prompts": 40, "answers": 9}.items()):
        sizes = torch.rand(COLUMNS, generator=generator) * 3 ** (2 * number)
        inputs[name] = torch.randn(tokens, COLUMNS, generator=generator) * sizes
    return inputs


def hessian_of(inputs: dict[str, torch.Tensor], *, parts: bool = True) -> Hessian:
    hessian = Hessian.zeros(COLUMNS)
    for name, some in inputs.items():
        hessian.add(some)
        if parts:
            for half in some.split(7):  # as batches come
                hessian.add_part(name, half)
    return hessian


def weights() -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(5))


def pooled_scores(W: torch.Tensor, inputs: dict[str, torch.Tensor]) -> list[list[float]]:
    scores = [[0.0] * COLUMNS for _ in range(ROWS)]
    for some in inputs.values():
        norms = [float((some[:, j].double() ** 2).sum()) ** 0.5 for j in range(COLUMNS)]
        usual = (sum(norm**2 for norm in norms) / COLUMNS) ** 0.5
        for row in range(ROWS):
            for j in range(COLUMNS):
                scores[row][j] += abs(float(W[row, j])) * norms[j] / usual / len(inputs)
    return scores


@pytest.mark.parametrize("level", [0.25, 0.5, 0.75])
def test_the_mask_of_a_plain_loop(level):
    W, inputs = weights(), sets()
    (pruned,) = AlphaSubnet().prune(W, hessian_of(inputs), [level])
    for row, scores in enumerate(pooled_scores(W, inputs)):
        goes = sorted(range(COLUMNS), key=scores.__getitem__)[: round(level * COLUMNS)]
        assert (pruned.weights[row] == 0).nonzero().flatten().tolist() == sorted(goes)
        kept = pruned.weights[row] != 0
        assert torch.equal(pruned.weights[row][kept], W[row][kept])


def test_n_of_m_of_a_plain_loop():
    W, inputs = weights(), sets()
    (pruned,) = AlphaSubnet(keep="1:4").prune(W, hessian_of(inputs), [0.75])
    for row, scores in enumerate(pooled_scores(W, inputs)):
        for start in range(0, COLUMNS, 4):
            best = max(range(start, start + 4), key=scores.__getitem__)
            assert pruned.weights[row, start : start + 4].nonzero().tolist() == [[best - start]]


def test_the_pooled_mask_is_no_single_sets():
    W, inputs = weights(), sets()
    (pooled,) = AlphaSubnet().prune(W, hessian_of(inputs), [0.5])
    for name, some in inputs.items():
        (single,) = AlphaSubnet().prune(W, hessian_of({name: some}), [0.5])
        assert not torch.equal(single.weights, pooled.weights)
    (mixed,) = Wanda().prune(W, hessian_of(inputs), [0.5])
    assert not torch.equal(mixed.weights, pooled.weights), "one loud set would have decided"


def test_a_set_counts_the_same_however_long_and_loud_it_is():
    W, inputs = weights(), sets()
    (one,) = AlphaSubnet().prune(W, hessian_of(inputs), [0.5])
    louder = inputs | {"text": torch.cat([inputs["text"]] * 4) * 8}
    (other,) = AlphaSubnet().prune(W, hessian_of(louder), [0.5])
    assert torch.equal(one.weights, other.weights)


def test_with_a_single_set_it_is_wanda():
    W, inputs = weights(), {"text": sets()["text"]}
    (expected,) = Wanda().prune(W, hessian_of(inputs), [0.5])
    for parts in (True, False):
        (found,) = AlphaSubnet().prune(W, hessian_of(inputs, parts=parts), [0.5])
        assert torch.equal(found.weights, expected.weights)


def test_a_silent_set_has_no_say():
    W, inputs = weights(), sets()
    (one,) = AlphaSubnet().prune(W, hessian_of(inputs), [0.5])
    silent = inputs | {"none": torch.zeros(5, COLUMNS)}
    (other,) = AlphaSubnet().prune(W, hessian_of(silent), [0.5])
    assert torch.equal(one.weights, other.weights)
