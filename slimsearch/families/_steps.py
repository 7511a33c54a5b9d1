"""What families have in common that change how blocks run: by a rule, or one gene for each block.

A rule has `start`, the first block, and `interval`: one block in so many from there on. Lines that
name blocks, with 1 for those that run otherwise and 0 for the rest, go before the rule.
"""

from abc import abstractmethod
from typing import ClassVar

from slimsearch.contracts import Edits, Family
from slimsearch.errors import PolicyError
from slimsearch.model.vlm import VLM
from slimsearch.policy import Body, Gene, Table, matching, parse_counts, unmatched
from slimsearch.routes.route import Step, together
from slimsearch.surgery.level_store import LevelStore


class Routed(Family):
    """A family whose edits are steps."""

    name: ClassVar[str]
    needs_pictures: ClassVar[bool] = False

    def apply(self, edits: Edits, vlm: VLM, store: LevelStore) -> None:
        vlm.reroute(self.name, together([edits], vlm.body.blocks))

    def restore(self, vlm: VLM, store: LevelStore) -> None:
        vlm.reroute(self.name, together([], vlm.body.blocks))

    def check(self, body: Body) -> None:
        if self.needs_pictures and not body.sees:
            raise PolicyError(
                f"[{self.name}] is about pictures, and this model reads text only. Leave it out."
            )


class Stepping(Routed):
    """A step that each block takes or does not take."""

    options: ClassVar[tuple[str, ...]] = ()  # further lines with a number
    every: ClassVar[int] = 1  # the rule's interval, and the least there can be

    @abstractmethod
    def step(self, table: Table) -> Step: ...

    def able(self, body: Body) -> tuple[str, ...]:
        """The blocks that can take it."""
        return body.blocks

    def choices(self, line: str, value: str | float, ratio: float) -> tuple[float, ...]:
        origin = f"[{self.name}] '{line}'"
        if line == "interval" and min(parse_counts(value, origin)) < self.every:
            raise PolicyError(f"{origin}: {value!r} cannot be; it is {self.every} at least.")
        free = line in ("start", "interval", *self.options)
        if not free and "." not in line:
            known = (*self.words, "start", "interval", *self.options)
            raise PolicyError(
                f"[{self.name}] has no option '{line}'. It has {', '.join(known)}, and lines that "
                f"name blocks, such as 'blocks.*'."
            )
        return parse_counts(value, origin, None if free else 1)

    def genes(self, table: Table, body: Body, ratio: float) -> list[Gene]:
        self.check(body)
        for line in (line for line in table if line not in self.words):
            self.choices(line, table[line], ratio)
        able = self.able(body)
        globs, rules = _globs(table), [key for key in table if key in ("start", "interval")]
        for glob in unmatched(globs, able):
            raise PolicyError(
                f"[{self.name}] '{glob}' names no block of this model that it could be done to. "
                f"Those are called {able[0]} to {able[-1]}."
            )
        if not globs and not rules:
            raise PolicyError(
                f"[{self.name}] names no part of the model: give it 'start' and 'interval', or "
                f"lines that name blocks, such as 'blocks.*'."
            )
        lines = {key: table[key] for key in (*rules, *self.options) if key in table}
        lines |= {name: found[1] for name in able if (found := matching(globs, name))}
        genes = [
            Gene(self.name, key, self.choices(key, value, ratio), 0) for key, value in lines.items()
        ]
        for gene in genes:
            if gene.key == "start" and gene.choices[-1] >= len(able):
                raise PolicyError(
                    f"[{self.name}] starts at block {gene.choices[-1]:g}; this model's last one "
                    f"that it could be done to is {len(able) - 1}."
                )
        return genes

    def edits(self, table: Table, body: Body) -> dict[str, Step]:
        able, globs = self.able(body), _globs(table)
        chosen = set()
        if "start" in table or "interval" in table:
            start, interval = int(table.get("start", 0)), int(table.get("interval", self.every))
            chosen = set(able[start::interval])
        for name in able:
            if found := matching(globs, name):
                chosen = chosen | {name} if float(found[1]) else chosen - {name}
        step = self.step(table)
        return {name: step for name in able if name in chosen}


def _globs(table: Table) -> Table:
    return {key: value for key, value in table.items() if "." in key}
