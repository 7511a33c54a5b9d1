"""No search: every part at the level nearest to the target, asked once."""

from slimsearch.searching.alone import Alone


class Uniform(Alone):
    allocations = ("uniform",)
