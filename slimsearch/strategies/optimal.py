"""The allocation of least predicted loss, from stored errors and gradients: no search."""

from slimsearch.searching.alone import Alone


class Optimal(Alone):
    allocations = ("optimal*3",)  # seeing is the first to go
