"""Every field of Settings as a flag, so that the command line and settings.toml cannot differ."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

from slimsearch import settings
from slimsearch.settings import Settings

_FROM = typer.Option("--from", help="A settings.toml to start from; flags given beside it win.")
_SHORT = {"out": ["-o"]}


def with_settings(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Turns `command(settings)` into a command with one flag for each setting."""
    kinds = get_type_hints(Settings)

    @wraps(command)
    def called(**given: Any) -> None:
        source: Path | None = given.pop("source")
        chosen = settings.read(source) if source else Settings()
        values = {key: value for key, value in given.items() if value is not None}
        command(settings.change(chosen, values, "the command line"))

    parameters = [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Optional[kinds[item.name]],  # noqa: UP045  typer reads it at run time
                typer.Option(_flag(item.name), *_SHORT.get(item.name, []), help=_help(item)),
            ],
        )
        for item in fields(Settings)
    ]
    source = inspect.Parameter(
        "source", inspect.Parameter.KEYWORD_ONLY, default=None,
        annotation=Annotated[Optional[Path], _FROM],  # noqa: UP045
    )  # fmt: skip
    called.__signature__ = inspect.Signature([*parameters, source])  # pyright: ignore[reportAttributeAccessIssue]
    called.__annotations__ = {p.name: p.annotation for p in (*parameters, source)}
    del called.__wrapped__  # pyright: ignore[reportAttributeAccessIssue]  its signature would win
    return called


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(item: Any) -> str:
    default = "" if item.default in ("", False) else f" Default: {item.default}."
    return item.metadata["about"] + default
