"""The stacked solver against plain column-by-column solves, one after the other in one process.

    python benchmarks/solver.py [--shapes 1024x1024,4096x1024] [--repeats 3] [--threads 2]

Both get the same factor; `factor` is ours, once for all levels, `plain factor` the published one
(Cholesky, inverse, Cholesky), which a plain solve pays at every level.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

import reference  # noqa: E402

from slimsearch.solvers.sparsegpt import SparseGPT  # noqa: E402
from slimsearch.surgery import obs  # noqa: E402
from slimsearch.surgery.hessian import Hessian  # noqa: E402

LEVELS = [0.4, 0.45, 0.5, 0.55, 0.6]
SHAPES = "1024x1024,4096x1024,1024x4096,4096x4096"
PATIENCE = 20.0  # seconds of plain solving for a shape after which they are not repeated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu", action="store_true", help="CPU seconds, for a busy machine")
    parser.add_argument("--torch", action="store_true", help="measure the torch fallback")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = process_time if options.cpu else perf_counter
    if options.torch:
        obs.solve = obs.solve_in_torch
    name = "torch" if options.torch else obs.backend()
    kind = "CPU" if options.cpu else "wall"
    print(f"{len(LEVELS)} levels, {options.threads} threads, {kind} seconds, stacked in {name}")
    print(
        f"{'shape':>11} {'plain s':>8} {'stacked s':>9} {'ratio':>6} {'factor s':>8} "
        f"{'plain factor s':>14} {'ratio with':>10} {'mask differs':>12} {'max rel diff':>12} "
        f"{'error ratio':>11}"
    )
    for shape in options.shapes.split(","):
        print(_line(*map(int, shape.split("x")), options.repeats, clock), flush=True)


def _line(rows: int, columns: int, repeats: int, clock: Callable[[], float]) -> str:
    weights, hessian = _problem(rows, columns)
    seconds: dict[str, list[float]] = {name: [] for name in ("plain", "ours", "factor", "theirs")}
    SparseGPT().prune(weights, hessian, LEVELS[:1])  # the first call builds the kernel
    plain: dict = {}
    for _ in range(repeats):
        fresh = Hessian(hessian.matrix, hessian.tokens)
        start = clock()
        upper = fresh.factor(0.01).upper
        seconds["factor"].append(clock() - start)
        start = clock()
        ours = SparseGPT().prune(weights, fresh, LEVELS)
        seconds["ours"].append(clock() - start)
        start = clock()
        reference.inverse_factor(hessian.matrix, 0.01)
        seconds["theirs"].append(clock() - start)
        if sum(seconds["plain"]) < PATIENCE:
            start = clock()
            plain = {x: reference.sparsegpt(weights, upper, x) for x in LEVELS}
            seconds["plain"].append(clock() - start)
    plain_s, ours_s, factor_s, theirs_s = (median(times) for times in seconds.values())
    differs, furthest, ratio = _compare(weights, hessian, ours, plain)
    return (
        f"{f'{rows}x{columns}':>11} {plain_s:8.2f} {ours_s:9.3f} {plain_s / ours_s:6.1f} "
        f"{factor_s:8.3f} {theirs_s:14.3f} "
        f"{(plain_s + len(LEVELS) * theirs_s) / (ours_s + factor_s):10.1f} "
        f"{differs:12.1e} {furthest:12.1e} {ratio:11.7f}"
    )


def _problem(rows: int, columns: int) -> tuple[Tensor, Hessian]:
    """Weights and correlated inputs whose columns differ in size, as those of a language model."""
    torch.manual_seed(0)
    hessian = Hessian.zeros(columns)
    mixing = torch.randn(columns, columns) / columns**0.5
    sizes = torch.randn(columns).exp()
    hessian.add((torch.randn(columns + 512, columns) @ mixing) * sizes)
    return torch.randn(rows, columns) / columns**0.5, hessian


def _compare(weights: Tensor, hessian: Hessian, ours: list, plain: dict) -> tuple[float, ...]:
    """Worst over levels: share of masks that differ, largest difference where the rows' masks
    agree over the largest weight, ours / plain reconstruction error."""
    differs, furthest, ratios = [], [], []
    for level, (solved, mask, _) in plain.items():
        mine = ours[LEVELS.index(level)]
        other = (mine.weights == 0) != mask
        differs.append(float(other.float().mean()))
        same = ~other.any(dim=1)
        apart = (mine.weights - solved)[same].abs().max() / solved.abs().max()
        furthest.append(float(apart))
        ratios.append(mine.error / hessian.half_trace(solved - weights))
    return max(differs), max(furthest), max(ratios, key=lambda ratio: abs(ratio - 1))


if __name__ == "__main__":
    main()
