"""Operations by part, multiplications and additions counted apart, and bytes of the KV cache.

A matrix of n weights costs 2 n for each token that meets it; scores and their weighted sum cost 4
times the width of all heads for each query and key. Norms, activations, softmax, biases and the
positions' rotation are left out, as torch.utils.flop_counter leaves them out. Of a prompt the head
reads the last token only, as generation does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimsearch.flops.shape import Shape
from slimsearch.routes.traffic import ATTENTION, Traffic

VISION, PROJECTOR = "vision tower", "projector"
PROJECTIONS, SCORES, FFN = "attention projections", "attention scores", "FFN"
HEAD = "head"
PARTS = (VISION, PROJECTOR, PROJECTIONS, SCORES, FFN, HEAD)


@dataclass(frozen=True)
class Flops:
    """`dense` is what an engine does that multiplies zeros too, `left` what zeros leave of it."""

    dense: float
    left: float

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.dense + other.dense, self.left + other.left)


def tokens_of(matrix: str, traffic: Traffic) -> int:
    """How many tokens a block's matrix meets, by our name of it, such as 'blocks.3.gate'."""
    role = matrix.rpartition(".")[2]
    if role == "q":
        return traffic.asking
    return traffic.tokens if role in ATTENTION else traffic.fed


def decoder(
    shape: Shape, traffics: Sequence[Traffic], levels: Mapping[str, float]
) -> dict[str, Flops]:
    """By part, of one pass through the decoder; `levels` are shares of zeros by matrix."""
    found = {part: Flops(0, 0) for part in (PROJECTIONS, SCORES, FFN, HEAD)}
    for matrix in shape.matrices:
        traffic = traffics[int(matrix.name.split(".")[1])]
        flops = 2.0 * matrix.size * tokens_of(matrix.name, traffic)
        part = PROJECTIONS if matrix.name.rpartition(".")[2] in ATTENTION else FFN
        found[part] += Flops(flops, flops * (1 - levels.get(matrix.name, 0.0)))
    asked = sum(scores(shape, traffic) for traffic in traffics)
    found[SCORES] = Flops(asked, asked)
    head = 2.0 * (shape.head + shape.beside * max(max(w.tokens, w.fed) for w in traffics))
    found[HEAD] = Flops(head, head)
    return found


def scores(shape: Shape, traffic: Traffic) -> float:
    """Of one block: what queries are to keys, and the values so weighed."""
    return 4.0 * traffic.pairs * shape.heads * shape.head_width


def pictures(shape: Shape, visual: int) -> dict[str, Flops]:
    """Of the vision side, for as many pictures (or parts of one) as give so many visual tokens."""
    tower = shape.tower
    if tower is None:
        return {}
    each = 2.0 * (tower.patches * tower.embedding + tower.tokens * tower.matrices)
    each += 4.0 * tower.tokens**2 * tower.width * tower.layers
    vision, projector = each * visual / tower.visual, 2.0 * visual * tower.projector
    return {VISION: Flops(vision, vision), PROJECTOR: Flops(projector, projector)}


def cache_bytes(shape: Shape, traffics: Sequence[Traffic]) -> int:
    """Of all keys and values that the blocks keep behind a prompt."""
    each = 2 * shape.key_heads * shape.head_width * shape.itemsize
    return each * sum(traffic.cached for traffic in traffics)


def total(parts: Mapping[str, Flops]) -> Flops:
    return sum(parts.values(), Flops(0, 0))
