"""FLOPs and cache bytes of a model, dense and under a policy, for several numbers of visual tokens.

A prompt is so many visual tokens and some of text; the token is the first one generated behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimsearch import policy as policies
from slimsearch import shelf
from slimsearch.api import assembly
from slimsearch.contracts import Family
from slimsearch.errors import PolicyError
from slimsearch.flops import count, shape
from slimsearch.flops.count import Flops
from slimsearch.flops.shape import Shape
from slimsearch.model import checkpoint, loading
from slimsearch.policy import SPARSITY, Body, Policy
from slimsearch.routes.route import Route, plain
from slimsearch.routes.traffic import prompt, token
from slimsearch.searching import space
from slimsearch.settings import Settings


@dataclass(frozen=True)
class Pass:
    """A prompt, or one generated token: FLOPs by part, and what the dense model takes in all."""

    parts: Mapping[str, Flops]
    of: float

    @property
    def total(self) -> Flops:
        return count.total(self.parts)

    def as_dict(self) -> dict[str, Any]:
        named = {**self.parts, "total": self.total}
        return {**{name: asdict(flops) for name, flops in named.items()}, "dense_model": self.of}


@dataclass(frozen=True)
class Counted:
    visual_tokens: int
    prompt: Pass
    token: Pass
    cache_bytes: int
    dense_cache_bytes: int


@dataclass(frozen=True)
class Report:
    rows: tuple[Counted, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        rows = [
            {**vars(row), "prompt": row.prompt.as_dict(), "token": row.token.as_dict()}
            for row in self.rows
        ]
        return {"rows": rows, "notes": list(self.notes)}


def report(settings: Settings, file: str, visual: Sequence[int], text: int) -> Report:
    """For each number of visual tokens; `file` names a policy, or nothing for the dense model."""
    sizes, route, levels = planned(settings, file)
    rows = tuple(_count(sizes, route, levels, tokens, text) for tokens in visual)
    return Report(rows, tuple(_notes(sizes, route, max(visual))))


def planned(settings: Settings, file: str) -> tuple[Shape, Route, Mapping[str, float]]:
    """A model's sizes, how its blocks would run under a policy, and each matrix's share of zeros;
    no weight is read."""
    place = Path(settings.model).expanduser()
    found = checkpoint.beside(place) if place.is_dir() else checkpoint.find(settings.model)
    sizes = shape.read(found)
    body = Body(sizes.matrices, sees=loading.architecture_of(found).sees)
    policy, families = _policy(settings, file, body) if file else (Policy({}), {})
    came_with = loading.route_of(found, len(body.blocks))
    route = came_with | space.route(policy, families, body)
    levels = families[SPARSITY].edits(policy.table(SPARSITY), body) if SPARSITY in families else {}
    return sizes, route, levels


def _policy(settings: Settings, file: str, body: Body) -> tuple[Policy, dict[str, Family]]:
    """A policy's numbers for this model, and its families."""
    read = policies.read(shelf.find("policies", file))
    families: dict[str, Family] = {
        name: assembly.make("families", name, settings) for name in read.tables
    }
    space.check(read, families, settings.ratio)
    found = space.build(read, families, body, settings.ratio, settings.levels)
    if not found.single:
        raise PolicyError(
            f"{read.file} still has ranges: what it does depends on what a search chooses. "
            f"Give a policy of numbers, such as a run's best.toml."
        )
    return found.decode((0,) * len(found.genes)), families


def _count(
    sizes: Shape, route: Route, levels: Mapping[str, float], visual: int, text: int
) -> Counted:
    usual = plain(len(sizes.spans))
    read, dense = (prompt(some, sizes.spans, visual, text) for some in (route, usual))
    said, dense_said = token(route, read), token(usual, dense)
    pictures = count.pictures(sizes, visual)
    whole = count.total({**pictures, **count.decoder(sizes, dense, {})}).dense
    whole_said = count.total(count.decoder(sizes, dense_said, {})).dense
    return Counted(
        visual,
        Pass({**pictures, **count.decoder(sizes, read, levels)}, whole),
        Pass(count.decoder(sizes, said, levels), whole_said),
        count.cache_bytes(sizes, read),
        count.cache_bytes(sizes, dense),
    )


def _notes(sizes: Shape, route: Route, most: int) -> Iterator[str]:
    if sizes.unknown:
        yield f"The vision side is not counted: {sizes.unknown}."
    elif sizes.tower is None and most:
        yield "This model sees nothing: visual tokens are counted in its decoder alone."
    elif sizes.tower is not None and sizes.tower.tiles:
        yield (
            f"The vision side is counted as one tile for every {sizes.tower.visual} visual tokens; "
            f"where a picture's tiles are cropped or shrunk to fewer, more of them are read."
        )
    if route.merge is not None:
        yield "Merging keeps as many tokens as a picture asks for: counted as if it kept all."
