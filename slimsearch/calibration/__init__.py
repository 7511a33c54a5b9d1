"""What a search is calibrated on: a stream of text, and pictures with questions and answers.

`gather` reads and checks all of it before any model is loaded; nothing in here knows of one.
"""

from slimsearch.calibration.material import Material, gather
from slimsearch.calibration.pairs import Pair
from slimsearch.calibration.segments import draw_segments
from slimsearch.calibration.turns import Turn

__all__ = ["Material", "Pair", "Turn", "draw_segments", "gather"]
