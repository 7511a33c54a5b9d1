"""How well a search is told what policies cost: by gradients, and by a share of the calibration.

    python benchmarks/foretelling.py MODEL [--ratio 0.7] [--text train.txt] [--pairs pairs.json]
        [--policies 16]

Policies by rule are scored on all of the calibration: optimal by the uniform policy's gradients, as
searches begin, and by the dense model's. Then others, cheapest under prices drawn around the
foretold ones, are scored on each share that candidates race on: how these agree with all of it.
Last, the outlook from the optimal policy: what strides from there and switches of levels are
foretold to cost, and what they cost.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from slimsearch import Settings
from slimsearch.api import assembly, inputs
from slimsearch.record.candidate import Candidate, Genes, Hints, Score
from slimsearch.searching import allocation, outlook, ranks, sensitivity
from slimsearch.searching.allocation import Costs, Ground
from slimsearch.searching.parts import Loop
from slimsearch.searching.watch import Watch
from slimsearch.strategies._strides import Strides
from slimsearch.surgery import level_store

APART = 0.5  # how far drawn prices lie from the foretold ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--ratio", type=float, default=0.7)
    parser.add_argument("--text", default="auto")
    parser.add_argument("--pairs", default="auto")
    parser.add_argument("--policies", type=int, default=16)
    given = parser.parse_args()
    chosen = Settings(
        model=given.model, ratio=given.ratio, calibration=given.text, pairs=given.pairs,
        device="cpu", projector_steps=0, polish="none",
    )  # fmt: skip
    loop = assembly.load(inputs.gather(chosen), Watch()).loop
    with TemporaryDirectory() as place:
        fill(loop, Path(place))
        ground = Ground(loop.space, loop.evaluator, stored=True)
        known = by_rule(loop, ground)
        on_shares(loop, drawn(loop, known.costs, given.policies))
        ahead(loop, known)


def fill(loop: Loop, folder: Path) -> None:
    family, evaluator = loop.evaluator.families["layer_sparsity"], loop.evaluator
    levels = loop.space.levels(family, evaluator.vlm.body)
    level_store.fill(
        evaluator.store, evaluator.vlm, loop.hessian_batches, levels, loop.solver, loop.tokens,
        lambda: None, folder,
    )  # fmt: skip
    evaluator.store.load(folder)


def by_rule(loop: Loop, ground: Ground) -> Hints:
    """Prints what each rule scores, and returns what a search begins with."""
    known = allocation.gather(("uniform", "owl", "optimal"), ground)
    found = dict(known.allocations)
    found["optimal, dense gradients"] = loop.space.budget.cheapest(dense_costs(loop, ground))
    for name, genes in found.items():
        score = scored(loop, name, genes, 1.0)
        terms = ", ".join(f"{term} {value:.3f}" for term, value in score.terms.items())
        print(f"{name:>24}: {score.total:.3f} ({terms})", flush=True)
    return known


def dense_costs(loop: Loop, ground: Ground) -> list[list[float]]:
    """What a search would be told by the gradients of a model that nothing was taken from."""
    evaluator, some = loop.evaluator, loop.evaluator.calibrated.part(allocation.SHARE)
    evaluator.restore()
    text, pairs = (sensitivity.slope(evaluator.vlm, b).squares for b in (some.texts, some.pairs))
    weigh = evaluator.weights.get
    power = {
        m: weigh("text_loss", 0.0) * text[m] + weigh("answer_loss", 0.0) * pairs[m] for m in text
    }
    return [
        [sum(power[m] * evaluator.store.error(m, level) for m in part) for level in gene.choices]
        for gene, part in zip(loop.space.genes, ground.parts, strict=True)
    ]


def drawn(loop: Loop, costs: Costs, count: int) -> list[Genes]:
    random = np.random.default_rng(0)
    prices = np.exp(random.normal(0, APART, (count, len(costs))))
    return [
        loop.space.budget.cheapest([p * np.array(c) for p, c in zip(some, costs, strict=True)])
        for some in prices
    ]


def on_shares(loop: Loop, policies: list[Genes]) -> None:
    """Prints how policies differ on each share, and whether they do so as on all of it."""
    scores = {
        share: [scored(loop, str(n), genes, share) for n, genes in enumerate(policies)]
        for share in loop.shares
    }
    for name in ("total", *loop.evaluator.terms):
        values = {
            share: [s.total if name == "total" else s.terms[name] for s in some]
            for share, some in scores.items()
        }
        for share, some in values.items():
            alike = ranks.correlation(some, values[1.0]) or 0.0
            print(f"{name} on {share:g}: spread {np.std(some):.4f}, ranks as on all {alike:.2f}")


def ahead(loop: Loop, known: Hints) -> None:
    """Prints what changes of the optimal policy are foretold to cost beside what they do."""
    genes, random = known.allocations["optimal"], np.random.default_rng(0)
    told = outlook.look(loop.space, loop.evaluator, genes, known.costs)
    strides = Strides(loop.space.budget, random)
    strides.turn(told)
    tried = strides.propose(6, {genes})
    tried += [loop.space.budget.switched(genes, times, random) for times in (2, 4, 8, 16) * 2]
    before = scored(loop, "before", genes, 1.0).total
    found = []
    for other in tried:
        ways = told.along, told.away, known.costs
        along, away, plain = (sum(c[i] for c, i in zip(w, other, strict=True)) for w in ways)
        plain -= sum(c[i] for c, i in zip(known.costs, genes, strict=True))
        cost = scored(loop, "after", other, 1.0).total - before
        moved = sum(a != b for a, b in zip(genes, other, strict=True))
        print(f"{moved:>3} genes moved: foretold {along + away:+.4f} (by the uniform policy's "
              f"gradients {plain:+.4f}), measured {cost:+.4f}", flush=True)  # fmt: skip
        found.append((along + away, plain, cost))
    ahead, plain, cost = zip(*found, strict=True)
    print(f"ranks as measured: {ranks.correlation(ahead, cost):.2f}, by the uniform policy's "
          f"gradients {ranks.correlation(plain, cost):.2f}")  # fmt: skip


def scored(loop: Loop, name: str, genes: Genes, share: float) -> Score:
    return loop.evaluator.score(Candidate(name, genes, loop.space.decode(genes)), 0, (), share)


if __name__ == "__main__":
    main()
