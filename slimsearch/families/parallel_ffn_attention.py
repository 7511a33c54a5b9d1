"""FFN and self-attention side by side: both read what the block reads."""

from slimsearch.families._steps import Stepping
from slimsearch.policy import Table
from slimsearch.routes.route import Step


class ParallelFFNAttention(Stepping):
    name = "parallel_ffn_attention"

    def step(self, table: Table) -> Step:
        return Step(parallel_ffn=True)
