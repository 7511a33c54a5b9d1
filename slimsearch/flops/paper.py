"""Table 2 of "Quadratic Is Not What You Need": its numbers, its accounting, and what is computed.

Its accounting takes the decoder's weights without embedding and head once for every token, and
scores at 4 n^2 d a layer. In LayerCut's last layers text's matrices count and its few scores do
not: with them one cell would be 1.02% off. AttnCut drops two of the four projections of a visual
token there; but text still asks for visual keys, so only the query's can go: `computed` is what our
blocks compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from slimsearch.flops import count
from slimsearch.flops.shape import Shape
from slimsearch.policy import Matrix
from slimsearch.routes.route import PICTURES, Route, Step
from slimsearch.routes.traffic import prompt

WIDTH, FFN, LAYERS, HEADS, VOCABULARY = 5120, 13824, 40, 40, 32000  # Vicuna-13B
TEXT = 40
VISUAL = {576: "576", 32_000: "32k", 128_000: "128k"}
PUBLISHED = {  # FLOPs in units of 1e12
    "LLaVA-1.5": (15.9, 1654.1, 16679.8),
    "AttnCut": (13.2, 678.9, 2712.8),
    "LayerCut N=39": (1.4, 42.3, 417.7),
    "LayerCut N=30": (4.7, 413.5, 4168.3),
    "LayerCut N=20": (8.5, 826.1, 8337.2),
}
ROLES = {
    **dict.fromkeys(("q", "k", "v", "o"), (WIDTH, WIDTH)),
    **dict.fromkeys(("gate", "up"), (FFN, WIDTH)),
    "down": (WIDTH, FFN),
}
VICUNA = Shape(
    matrices=tuple(
        Matrix(f"blocks.{index}.{role}", *sides)
        for index in range(LAYERS)
        for role, sides in ROLES.items()
    ),
    spans=(None,) * LAYERS,
    heads=HEADS,
    key_heads=HEADS,
    head_width=WIDTH // HEADS,
    head=VOCABULARY * WIDTH,
)


@dataclass(frozen=True)
class Cell:
    """FLOPs of one model at one number of visual tokens, in units of 1e12."""

    model: str
    visual_tokens: int
    published: float
    formula: float  # in the paper's accounting
    computed: float  # in ours
    off: float  # how far the formula is from what is printed, as a share of that
    off_as_printed: float  # the same once it is rounded to the one decimal that is printed


def table() -> list[Cell]:
    """All 15 cells."""
    return [
        _cell(model, visual, printed)
        for model, row in PUBLISHED.items()
        for visual, printed in zip(VISUAL, row, strict=True)
    ]


def _cell(model: str, visual: int, published: float) -> Cell:
    formula, computed = _formula(model, visual) / 1e12, _computed(model, visual) / 1e12
    off, as_printed = formula / published - 1, round(formula, 1) / published - 1
    return Cell(model, visual, published, formula, computed, off, as_printed)


def _formula(model: str, visual: int) -> float:
    if model == "AttnCut":
        dropped = 2.0 * visual * 2 * WIDTH**2 * LAYERS
        scores = 4.0 * TEXT * (visual + TEXT) * WIDTH * LAYERS
        return _products(visual + TEXT) - dropped + scores
    cut = _cut(model) / LAYERS  # of the layers, text passes alone
    return _dense(visual + TEXT) * (1 - cut) + _products(TEXT) * cut


def _dense(tokens: int) -> float:
    return _products(tokens) + 4.0 * tokens**2 * WIDTH * LAYERS


def _products(tokens: int) -> float:
    return 2.0 * tokens * sum(matrix.size for matrix in VICUNA.matrices)


def _computed(model: str, visual: int) -> float:
    traffics = prompt(_route(model), VICUNA.spans, visual, TEXT)
    return count.total(count.decoder(VICUNA, traffics, {})).dense


def _route(model: str) -> Route:
    if model == "AttnCut":
        return Route((Step(window=0),) * LAYERS)
    cut = _cut(model)
    return Route((Step(),) * (LAYERS - cut) + (Step(skip_block=PICTURES),) * cut)


def _cut(model: str) -> int:
    """How many last layers a row of the table keeps visual tokens out of."""
    return int(model.partition("N=")[2] or 0)
