"""Whole decoder blocks that tokens pass by: those of answers (T), or all (P+T)."""

from typing import ClassVar

from slimsearch.families._steps import Stepping
from slimsearch.policy import Table
from slimsearch.routes.route import TOKENS, Step


class SkipBlock(Stepping):
    name = "skip_block"
    words: ClassVar = {"tokens": ("P+T", "T")}

    def step(self, table: Table) -> Step:
        return Step(skip_block=TOKENS[str(table.get("tokens", "P+T"))])
