"""Layer-wise ratios by outliers, as OWL gives them: one candidate, no search."""

from slimsearch.searching.alone import Alone


class Owl(Alone):
    allocations = ("owl",)
