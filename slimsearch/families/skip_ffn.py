"""FFNs that tokens pass by: those of answers (T), or all (P+T)."""

from typing import ClassVar

from slimsearch.families._steps import Stepping
from slimsearch.policy import Table
from slimsearch.routes.route import TOKENS, Step


class SkipFFN(Stepping):
    name = "skip_ffn"
    words: ClassVar = {"tokens": ("P+T", "T")}

    def step(self, table: Table) -> Step:
        return Step(skip_ffn=TOKENS[str(table.get("tokens", "P+T"))])
