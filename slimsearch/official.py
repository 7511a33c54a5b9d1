"""A dataset's own files, found in the folder that --data names; what is missing is named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from slimsearch.calibration import hub
from slimsearch.contracts import Question
from slimsearch.errors import TaskError

HUB = "hub"
BRIEFLY = "Answer the question using a single word or phrase."  # as LLaVA 1.5 is told
Kind = TypeVar("Kind")
_NAMES = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


def asked(question: Question, instruction: str) -> Question:
    """The question with an instruction on a line of its own behind it, if there is one."""
    return replace(question, prompt=f"{question.prompt}\n{instruction}".strip())


def place(data: str, wanted: str) -> Path:
    """The folder or file that --data names."""
    if not data:
        raise TaskError(f"Say where the questions are with --data: {wanted}.")
    found = Path(data).expanduser()
    if not os.path.exists(found):  # unlike Path.exists, never raises
        raise TaskError(f"There is no {found}. --data wants {wanted}.")
    return found


def rows(data: str, dataset: str, config: str, split: str) -> Iterator[dict[str, Any]] | None:
    """The hub's data set row by row, for `--data hub` or a folder of its parquet files; None for
    any other folder."""
    if data == HUB:
        return hub.load_rows(dataset, config, split)
    folder = Path(data).expanduser()
    shards = sorted(folder.glob("**/*.parquet")) if data and folder.is_dir() else []
    named = [file for file in shards if file.name.startswith(split)]
    return hub.read_rows(named or shards) if shards else None


def find(folder: Path, names: Sequence[str], wanted: str) -> Path:
    """The first file below the folder that one of the patterns names."""
    if folder.is_file():
        return folder
    for name in names:
        if found := sorted(file for file in folder.glob(name) if file.is_file()):
            return found[0]
    holds = sorted(file.name for file in folder.iterdir())[:8]
    raise TaskError(
        f"{folder} holds no {' or '.join(names)}, but {', '.join(holds) or 'nothing'}. --data "
        f"wants {wanted}."
    )


def text(file: Path | str) -> str:
    """A file's text."""
    try:
        return Path(file).expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file} cannot be read: {error}.") from None


def read(file: Path) -> Any:
    """A .json; or the list of a file with an object a line, whatever its name ends in."""
    content = text(file)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as whole:
        lines = [(n, line) for n, line in enumerate(content.split("\n"), 1) if line.strip()]
        found = []
        for number, line in lines:
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                reason = whole if number == 1 else f"line {number}: {error}"
                raise TaskError(f"{file} is no JSON ({reason}). Fetch it again.") from None
        return found


def objects(found: Any, file: Path) -> list[dict[str, Any]]:
    """A list of objects, or the complaint that it is none."""
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise TaskError(f"{file} holds no list of objects. Give the dataset's own file.")
    return found


def field(record: dict[str, Any], key: str, kind: type[Kind], where: str) -> Kind:
    """A value of a record, of this kind."""
    value = record.get(key)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    found = repr(value)[:60] if key in record else "nothing"
    raise TaskError(f"{where}: '{key}' must be {_NAMES[kind]}, found {found}.")


def perhaps(record: dict[str, Any], key: str, kind: type[Kind], where: str) -> Kind | None:
    """The same where it may be left out: None where it is missing, null or empty."""
    if record.get(key) in (None, "", [], {}):
        return None
    return field(record, key, kind, where)


def name(record: dict[str, Any], key: str, where: str) -> str | int:
    """What a record is called: a text or a whole number."""
    found = record.get(key)
    if isinstance(found, str | int) and not isinstance(found, bool):
        return found
    raise TaskError(f"{where}: '{key}' must be text or a whole number, found {repr(found)[:60]}.")


def record(found: Any, where: str) -> dict[str, Any]:
    """An object, or the complaint that it is none."""
    if not isinstance(found, dict):
        raise TaskError(f"{where} is no object, found {repr(found)[:60]}.")
    return found


def texts(record: dict[str, Any], key: str, where: str) -> list[str]:
    """A list of texts."""
    found = field(record, key, list, where)
    if not all(isinstance(one, str) for one in found):
        raise TaskError(f"{where}: '{key}' must be a list of texts, found {repr(found)[:60]}.")
    return found


def picture(folder: Path, name: str, places: Sequence[str], where: str) -> Path:
    """Where a picture stands in one of these folders, or should stand in the first of them."""
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).anchor or ".." in path.parts:
        raise TaskError(f"{where}: the picture {name!r} leaves the folder {folder}. Refused.")
    candidates = [folder / place / path for place in places]
    return next((file for file in candidates if os.path.isfile(file)), candidates[0])
