"""Layer-wise ratios by the tails of the spectra, as AlphaPruning gives them: no search."""

from slimsearch.searching.alone import Alone


class Alpha(Alone):
    allocations = ("alpha",)
