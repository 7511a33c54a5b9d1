"""slimsearch flops: what a model computes by formula, dense and under a policy."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

COLUMNS = (
    "part", "prompt, dense engine", "prompt, without zeros", "one token, dense engine",
    "one token, without zeros",
)  # fmt: skip
UNITS = (1e12, "T"), (1e9, "G"), (1e6, "M")
POLICY = "A policy without ranges: a name in policies/ or a TOML file. Default: the dense model."


def command(
    model: Annotated[str, typer.Argument(help="Folder (a config.json is enough) or hub id.")] = "",
    policy: Annotated[str, typer.Option(help=POLICY)] = "",
    ratio: Annotated[float, typer.Option(help="What the policy's offsets start from.")] = 0.5,
    visual_tokens: Annotated[str, typer.Option(help="Numbers of them.")] = "576,32000,128000",
    text_tokens: Annotated[int, typer.Option(min=1, help="Beside them, in the prompt.")] = 40,
    paper: Annotated[
        bool, typer.Option("--paper", help="Table 2 of 'Quadratic Is Not What You Need' instead.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Count FLOPs by part, and bytes of the KV cache, from a model's configuration alone."""
    from slimsearch.errors import SettingsError

    if paper:
        _paper(json)
        return
    if not model:
        raise SettingsError("Say which model: slimsearch flops MODEL, or --paper.")
    from slimsearch import display
    from slimsearch.api import counting, sweeping
    from slimsearch.settings import Settings, checked

    visual = sweeping.numbers(visual_tokens, "--visual-tokens", least=0)
    settings = checked(Settings(model=model, ratio=ratio))
    found = counting.report(settings, policy, visual, text_tokens)
    if json:
        asked = {"model": model, "policy": policy, "text_tokens": text_tokens}
        display.as_json(asked | found.as_dict())
        return
    for row in found.rows:
        title = f"{row.visual_tokens} visual tokens, {text_tokens} of text"
        display.grid(title, COLUMNS, list(_cells(row)))
    for note in found.notes:
        display.say(note)


def _cells(row: Any) -> Iterator[list[str]]:
    """FLOPs by part, in all, and beside the dense model; then the cache."""
    empty = type(row.prompt.total)(0, 0)
    for part in row.prompt.parts:
        both = (row.prompt.parts[part], row.token.parts.get(part, empty))
        yield [part, *(_flops(value) for flops in both for value in (flops.dense, flops.left))]
    totals = [(some.total, some.of) for some in (row.prompt, row.token)]
    yield ["in all", *(_flops(v) for total, _ in totals for v in (total.dense, total.left))]
    shares = (v / of for total, of in totals for v in (total.dense, total.left))
    yield ["of the dense model", *(f"{share:.3f}" for share in shares)]
    of = f"{row.cache_bytes / max(row.dense_cache_bytes, 1):.3f} of dense"
    yield ["KV cache", f"{row.cache_bytes / 1e6:,.2f} MB", of, "", ""]


def _flops(value: float) -> str:
    unit, name = next((one for one in UNITS if value >= one[0]), UNITS[-1])
    return f"{value / unit:,.2f} {name}"


def _paper(json: bool) -> None:
    from dataclasses import asdict

    from slimsearch import display
    from slimsearch.flops import paper

    cells = paper.table()
    if json:
        facts = [asdict(cell) for cell in cells]
        display.as_json({"unit": 1e12, "text_tokens": paper.TEXT, "cells": facts})
        return
    rows = [
        [c.model, paper.VISUAL[c.visual_tokens], f"{c.published:.1f}", f"{c.formula:.3f}",
         f"{c.off:+.2%}", f"{c.computed:.3f}"]
        for c in cells
    ]  # fmt: skip
    columns = ("model", "visual tokens", "published", "its accounting", "off", "computed")
    display.grid("Vicuna-13B, 40 tokens of text: FLOPs in units of 1e12", columns, rows)
    most = max(abs(cell.off_as_printed) for cell in cells)
    display.say(
        f"The paper prints one decimal: rounded so, its accounting is within {most:.2%} of every "
        f"cell."
    )
