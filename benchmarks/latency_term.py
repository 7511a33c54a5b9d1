"""How well the objective term `latency` foretells: policies drawn at random, foretold and timed.

    python benchmarks/latency_term.py MODEL [--engines deepsparse,native] [--phases prefill,decode]
        [--tokens 256] [--policies 5] [--cores 0]

Each policy gives every matrix a level of its own between 0.3 and 0.8. They and the sparsities of
the table take turns in the engine; the mean of the fast quarter of each one's passes counts.
"""

import argparse
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from slimsearch import display
from slimsearch.graphs import anatomy
from slimsearch.graphs.anatomy import Decoder
from slimsearch.latency import stopwatch
from slimsearch.latency.table import Part, Table
from slimsearch.latency.work import Work, matrices_in, shape_of
from slimsearch.model import checkpoint, loading

LEVELS = (0.3, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--engines", default="deepsparse,native")
    parser.add_argument("--phases", default="prefill,decode")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--policies", type=int, default=5)
    parser.add_argument("--cores", type=int, default=0, help="0: all")
    options = parser.parse_args()
    vlm = loading.load(checkpoint.find(options.model), "cpu", "float32")
    parts = anatomy.read(vlm)
    policies = drawn(stopwatch.few_blocks(parts), options.policies)
    for name in options.engines.split(","):
        for phase in options.phases.split(","):
            work = stopwatch.work_of(vlm, name, phase, options.tokens)
            work = replace(work, cores=options.cores)
            foretold, taken = compared(parts, policies, work)
            errors = [abs(f / t - 1) for f, t in zip(foretold, taken, strict=True)]
            pairs = ", ".join(f"{f:.3f}/{t:.3f}" for f, t in zip(foretold, taken, strict=True))
            display.say(
                f"{name}, {phase} of {options.tokens}: off by {np.mean(errors):.1%} on average, "
                f"{max(errors):.1%} at most; foretold/timed ms {pairs}"
            )


def compared(
    parts: Decoder, policies: list[Decoder], work: Work
) -> tuple[list[float], list[float]]:
    """Milliseconds of a pass through each policy, foretold and timed."""
    few = stopwatch.few_blocks(parts)
    grid = {str(s): partial(stopwatch.thinned, few, s) for s in stopwatch.GRID}
    drawn = {f"policy {n}": partial(replace, policy) for n, policy in enumerate(policies)}
    timings = stopwatch.timed(grid | drawn, work)
    table = Table({}, stopwatch.points(few, timings))
    return [table.predict(parts_in(policy)) for policy in policies], [
        timings[name].total for name in drawn
    ]


def drawn(dense: Decoder, count: int) -> list[Decoder]:
    """The decoder with each matrix at a level of its own, several times."""
    draw = torch.Generator().manual_seed(1)

    def thin(matrix: anatomy.Matrix) -> anatomy.Matrix:
        level = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * float(torch.rand((), generator=draw))
        weight = matrix.weight.detach().clone()
        weight[torch.rand(weight.shape, generator=draw) < level] = 0
        return replace(matrix, weight=weight)

    def once() -> Decoder:
        return replace(dense, blocks=tuple(block.changed(thin) for block in dense.blocks))

    return [once() for _ in range(count)]


def parts_in(policy: Decoder) -> list[Part]:
    weights = [matrix.weight for matrix in matrices_in(policy)]
    return [Part(shape_of(w), w.numel(), 1 - int(w.count_nonzero()) / w.numel()) for w in weights]


if __name__ == "__main__":
    main()
