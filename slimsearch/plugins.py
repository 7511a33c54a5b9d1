"""Plug-ins are files: solvers/wanda.py is the solver 'wanda'. No registry, no list to edit.

A plug-in file holds exactly one class of its own derived from the kind's contract. Outsiders
register an entry point in the group `slimsearch.<kind>` that points at such a class.
"""

import ast
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from pathlib import Path
from types import ModuleType
from typing import Any

from slimsearch.errors import SettingsError, did_you_mean

KINDS = (
    "families", "solvers", "architectures", "objectives", "strategies",
    "executors", "exporters", "runtimes", "tasks",
)  # fmt: skip


def names(kind: str) -> list[str]:
    """Names of one kind, our own and installed ones, without importing any."""
    return sorted({*_files(kind), *_outside(kind)})


def about(kind: str, name: str) -> str:
    """The first line of a plug-in's docstring, read without importing it."""
    if file := _files(kind).get(name):
        docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        return docstring.splitlines()[0] if docstring else ""
    return f"from {_outside(kind)[name].value}"


def find(kind: str, name: str) -> type:
    """The class behind a name; an unknown name is refused with the nearest known one."""
    if name in _files(kind):
        return _only_class(import_module(f"slimsearch.{kind}.{name}"), kind)
    if name in _outside(kind):
        return _outside(kind)[name].load()
    raise SettingsError(f"There is no '{name}' in {kind}.{did_you_mean(name, names(kind))}")


def make(kind: str, name: str, choices: Mapping[str, Any]) -> Any:
    """A plug-in made; the fields of a dataclass that are named like choices get their values."""
    found = find(kind, name)
    if not is_dataclass(found):
        return found()
    return found(**{f.name: choices[f.name] for f in fields(found) if f.name in choices})


def _files(kind: str) -> dict[str, Path]:
    if kind not in KINDS:
        raise SettingsError(f"There is no kind of plug-in '{kind}'.{did_you_mean(kind, KINDS)}")
    folder = Path(__file__).parent / kind
    return {file.stem: file for file in sorted(folder.glob("*.py")) if file.stem[0] != "_"}


def _outside(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"slimsearch.{kind}")}


def _only_class(module: ModuleType, kind: str) -> type:
    from slimsearch import contracts

    contract = contracts.OF_KIND[kind]
    own = [
        value for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, contract)
        and value.__module__ == module.__name__ and not isabstract(value)
    ]  # fmt: skip
    if len(own) != 1:
        raise TypeError(f"{module.__name__} must hold one {contract.__name__}, found {len(own)}")
    return own[0]
