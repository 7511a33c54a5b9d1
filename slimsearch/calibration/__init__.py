"""What a search is calibrated on: a stream of text, and pictures with questions and answers.

`gather` reads and checks all of it before any model is loaded; nothing in here knows of one.
"""

from slimsearch.calibration.material import (
    Also,
    Material,
    also_names,
    gather,
    gather_pairs_only,
)
from slimsearch.calibration.pairs import Pair, Pairs
from slimsearch.calibration.segments import draw_segments
from slimsearch.calibration.turns import Turn

__all__ = [
    "Also", "Material", "Pair", "Pairs", "Turn", "also_names", "draw_segments", "gather",
    "gather_pairs_only",
]  # fmt: skip
