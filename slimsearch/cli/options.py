"""Every field of Settings as a flag, so that the command line and settings.toml cannot differ."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

from slimsearch import settings
from slimsearch.errors import SettingsError
from slimsearch.settings import Settings

_FROM = typer.Option("--from", help="A settings.toml to start from; flags given beside it win.")
_SHORT = {"out": ["-o"]}

# A command's argument: the model, where it need not be --model.
NamedModel = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(metavar="[MODEL]", help="The model; another way to say --model."),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Turns `command(settings)` into a command with one flag for each setting.

    What else the command takes stays an argument or option of its own.
    """

    @wraps(command)
    def called(**given: Any) -> None:
        own = {name: given.pop(name) for name in others}
        source: Path | None = given.pop("source")
        chosen = settings.read(source) if source else Settings()
        values = {key: value for key, value in given.items() if value is not None}
        command(settings.change(chosen, values, "the command line"), **own)

    others = _others(command, "settings")
    source = inspect.Parameter(
        "source", inspect.Parameter.KEYWORD_ONLY, default=None,
        annotation=Annotated[Optional[Path], _FROM],  # noqa: UP045
    )  # fmt: skip
    flags = _flags([item.name for item in fields(Settings) if item.name not in others])
    return _signed(called, [*others.values(), *flags, source])


def into_folder(settings: Settings, model: str | None, what: str) -> tuple[Settings, Path]:
    """Settings with the model that stands as an argument, and the folder that --out names."""
    if model and settings.model not in (Settings.model, model):
        raise SettingsError(f"Two models are named, {model} and {settings.model}; name one.")
    if not settings.out:
        raise SettingsError(f"Say where the {what} model goes: --out FOLDER.")
    return replace(settings, model=model or settings.model), Path(settings.out)


def with_changes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turns `command(changes)` into a command with flags for some settings: what was given."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def called(**given: Any) -> None:
            own = {name: given.pop(name) for name in others}
            command({key: value for key, value in given.items() if value is not None}, **own)

        others = _others(command, "changes")
        return _signed(called, [*others.values(), *_flags(names)])

    return decorated


def _others(command: Callable[..., None], first: str) -> dict[str, inspect.Parameter]:
    """The parameters of a command beside its first one, as typer wants them."""
    found = inspect.signature(command, eval_str=True).parameters
    return {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in found.items()
        if name != first
    }


def _flags(names: Sequence[str]) -> list[inspect.Parameter]:
    kinds, items = get_type_hints(Settings), {item.name: item for item in fields(Settings)}
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Optional[kinds[name]],  # noqa: UP045  typer reads it at run time
                typer.Option(_flag(name), *_SHORT.get(name, []), help=_help(items[name])),
            ],
        )
        for name in names
    ]


def _signed(called: Callable[..., None], parameters: list[inspect.Parameter]) -> Any:
    called.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    del called.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]  its signature would win
    return called


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(item: Any) -> str:
    default = "" if item.default in ("", False) else f" Default: {item.default}."
    return item.metadata["about"] + default
