"""PruMerge: a picture's outstanding tokens stay, the others are merged into them.

`keep` is how many interquartile ranges above the upper quartile a token must be attended to; `plus`
is PruMerge+: how many times as many stay that are spread evenly over the picture.
"""

from slimsearch.errors import PolicyError
from slimsearch.families._steps import Routed
from slimsearch.policy import Body, Gene, Table, parse_counts, parse_numbers
from slimsearch.routes.route import Merge


class MergeTokens(Routed):
    name = "merge_tokens"
    needs_pictures = True

    def choices(self, line: str, value: str | float, ratio: float) -> tuple[float, ...]:
        origin = f"[merge_tokens] '{line}'"
        if line == "keep":
            return parse_numbers(value, origin)
        if line == "plus":
            return parse_counts(value, origin)
        raise PolicyError(f"[merge_tokens] has no option '{line}'. It has keep and plus.")

    def genes(self, table: Table, body: Body, ratio: float) -> list[Gene]:
        self.check(body)
        if not body.classed:
            raise PolicyError(
                "[merge_tokens] asks what the vision tower's class token attends to, and this "
                "model's tower has none. Leave it out; [layer_cut] and [attention_cut] do without."
            )
        lines = {"keep": Merge().keep, **table}
        return [Gene(self.name, key, self.choices(key, v, ratio), 0) for key, v in lines.items()]

    def edits(self, table: Table, body: Body) -> dict[str, Merge]:
        if not table:
            return {}
        keep, plus = table.get("keep", Merge().keep), table.get("plus", 0)
        return {"pictures": Merge(float(keep), int(plus))}
