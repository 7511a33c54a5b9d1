"""A small drawing kit: charts become scenes, and a scene is written as SVG or PNG.

scene     marks on a sheet: rectangles, lines, dots, words, in colours named by what they are for
charts    points and curves over two axes       bars, heat    what their names say
svg       a scene as text, light and dark in one file; `png` draws the same one with pillow
"""

from slimsearch.drawing.bars import Bar, Group, bars
from slimsearch.drawing.charts import Chart, Series, plot
from slimsearch.drawing.heat import HeatMap, heat
from slimsearch.drawing.scene import Scene, below, beside
from slimsearch.drawing.svg import svg

__all__ = [
    "Bar", "Chart", "Group", "HeatMap", "Scene", "Series", "bars", "below", "beside", "heat",
    "plot", "svg",
]  # fmt: skip
