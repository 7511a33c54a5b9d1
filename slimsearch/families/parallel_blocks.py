"""Two blocks side by side: both read what the first reads, and their work is averaged or added.

A line names the first of a pair. A block is in one pair at most: of two that overlap, the earlier
one holds.
"""

from typing import ClassVar

from slimsearch.families._steps import Stepping
from slimsearch.policy import Body, Table
from slimsearch.routes.route import COMBINED, Step


class ParallelBlocks(Stepping):
    name = "parallel_blocks"
    words: ClassVar = {"combine": COMBINED}
    every = 2

    def able(self, body: Body) -> tuple[str, ...]:
        return body.blocks[:-1]

    def step(self, table: Table) -> Step:
        return Step(parallel_next=str(table.get("combine", "mean")))

    def edits(self, table: Table, body: Body) -> dict[str, Step]:
        chosen = super().edits(table, body)
        free, found = 0, {}
        for place, name in enumerate(body.blocks):
            if name in chosen and place >= free:
                found[name], free = chosen[name], place + 2
        return found
