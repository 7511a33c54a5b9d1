"""LayerCut: in the last blocks pictures' tokens are neither updated nor attended to."""

from slimsearch.errors import PolicyError
from slimsearch.families._steps import Routed
from slimsearch.policy import Body, Gene, Table, parse_counts
from slimsearch.routes.route import PICTURES, Step


class LayerCut(Routed):
    name = "layer_cut"
    needs_pictures = True

    def choices(self, line: str, value: str | float, ratio: float) -> tuple[float, ...]:
        if line != "last":
            raise PolicyError(
                f"[layer_cut] has no option '{line}'. It has 'last': how many of the last blocks "
                f"go without pictures."
            )
        return parse_counts(value, "[layer_cut] 'last'")

    def genes(self, table: Table, body: Body, ratio: float) -> list[Gene]:
        self.check(body)
        found = [Gene(self.name, key, self.choices(key, v, ratio), 0) for key, v in table.items()]
        for gene in found:
            if gene.choices[-1] > len(body.blocks):
                raise PolicyError(
                    f"[layer_cut] 'last' is {gene.choices[-1]:g}; this model has "
                    f"{len(body.blocks)} blocks."
                )
        return found

    def edits(self, table: Table, body: Body) -> dict[str, Step]:
        last = int(table.get("last", 0))
        return {name: Step(skip_block=PICTURES) for name in body.blocks[len(body.blocks) - last :]}
