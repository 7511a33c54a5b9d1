"""AttnCut: pictures' tokens do not attend to each other; text attends to everything.

A picture's token then gives its own value; with a `window` it attends to itself and to so many
tokens of pictures before it.
"""

from typing import ClassVar

from slimsearch.families._steps import Stepping
from slimsearch.policy import Table
from slimsearch.routes.route import Step


class AttentionCut(Stepping):
    name = "attention_cut"
    options: ClassVar = ("window",)
    needs_pictures = True

    def step(self, table: Table) -> Step:
        return Step(window=int(table.get("window", 0)))
