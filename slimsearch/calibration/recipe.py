"""A recipe says where text and pairs come from and how much of each to use: one TOML file.

segments = 64
segment_length = 256
[text]
source = "hub"        # demo, hub or file; the other keys are the fields of the class below
[pairs]               # may be missing
source = "file"       # demo or file
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from slimsearch import files, shelf
from slimsearch.errors import CalibrationError, InputError, did_you_mean

TEXT_FILES = (".txt", ".jsonl")
MOST = 1 << 20  # of anything that a recipe counts
MOST_QUESTIONS = 24  # that a small scene has different ones of


@dataclass(frozen=True)
class DemoText:
    """Paragraphs of the demo's world."""

    words: int
    held_words: int


@dataclass(frozen=True)
class HubText:
    """One column of two files of a data set on the Hugging Face hub, the rows joined by `join`.

    `local` is the name of the same text as a file, used where one stands, line for row.
    """

    dataset: str
    file: str
    held_file: str
    column: str
    join: str
    revision: str = "main"
    local: str = ""


@dataclass(frozen=True)
class FileText:
    """A .txt or .jsonl file; without `held_file` its evaluation text is found beside or in it.

    `join` joins stripped lines (or documents); '' leaves lines alone and parts documents by a
    blank line.
    """

    file: str
    held_file: str = ""
    join: str = ""


@dataclass(frozen=True)
class DemoPairs:
    """Pictures of the demo's world."""

    questions_each: int
    held_questions_each: int


@dataclass(frozen=True)
class FilePairs:
    """A LLaVA-style .json, a .jsonl, or a folder of pictures."""

    file: str


@dataclass(frozen=True)
class Recipe:
    name: str
    text: DemoText | HubText | FileText
    pairs: DemoPairs | FilePairs | None = None
    about: str = ""
    segments: int = 64
    segment_length: int = 256
    pair_count: int = 128
    held_segments: int = 64
    held_pairs: int = 200


def read_recipe(name: str) -> Recipe:
    """The recipe behind a shelf name, a .toml file, or a bare .txt or .jsonl file."""
    given = Path(name).expanduser()
    if given.suffix.lower() in TEXT_FILES:
        return Recipe(given.name, FileText(str(given)))
    if name not in shelf.names("calibration"):
        _check_given(given)
    try:
        file = shelf.find("calibration", name)
    except InputError as error:
        raise CalibrationError(str(error)) from None
    try:
        found = files.read_toml(file)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{file} is no readable recipe: {error}.") from None
    text = _source(found.pop("text", None), "text", _TEXT_SOURCES, file)
    pairs = _source(found.pop("pairs"), "pairs", _PAIR_SOURCES, file) if "pairs" in found else None
    values = {"name": file.stem} | found
    return _filled(Recipe, values, f"{file}", {"text": text, "pairs": pairs})


_TEXT_SOURCES = {"demo": DemoText, "hub": HubText, "file": FileText}
_PAIR_SOURCES = {"demo": DemoPairs, "file": FilePairs}
_MAY_BE_ZERO = ("pair_count", "held_segments", "held_pairs", "held_words")
_TYPE_NAMES = {str: "a string", int: "a whole number"}
Filled = TypeVar("Filled")


def _check_given(given: Path) -> None:
    """Refuses what is no recipe's path, unless it may be the misspelt name of one."""
    if given.is_dir():
        raise CalibrationError(
            f"Calibration text {given} is a folder. Give a .txt, .jsonl or .toml file, or a name: "
            f"{', '.join(shelf.names('calibration'))}."
        )
    if given.is_file() and given.suffix != ".toml":
        raise CalibrationError(
            f"Calibration text {given} is of no known kind. Rename it to .txt (plain text), "
            f".jsonl (a document a line) or .toml (a recipe)."
        )


def _source(table: Any, key: str, kinds: Mapping[str, type], file: Path) -> Any:
    """The [text] or [pairs] table as the class that its `source` names."""
    if not isinstance(table, dict) or not isinstance(table.get("source"), str):
        raise CalibrationError(
            f"{file} needs a table [{key}] with a `source`: {', '.join(sorted(kinds))}."
        )
    values = dict(table)
    source = values.pop("source")
    if source not in kinds:
        raise CalibrationError(
            f"{file}: [{key}] has no source '{source}'.{did_you_mean(source, kinds)}"
        )
    filled = _filled(kinds[source], values, f"{file}: [{key}]", {})
    if isinstance(filled, FileText | FilePairs):  # relative paths start at the recipe's folder
        places = {
            item.name: str(file.parent / Path(getattr(filled, item.name)).expanduser())
            for item in fields(filled)
            if item.name.endswith("file") and getattr(filled, item.name)
        }
        filled = replace(filled, **places)
    return filled


def _filled(
    kind: type[Filled], values: dict[str, Any], where: str, ready: dict[str, Any]
) -> Filled:
    """An object of this class from a TOML table, every key and value checked."""
    hints = {key: hint for key, hint in get_type_hints(kind).items() if key not in ready}
    for key, value in values.items():
        if key not in hints:
            raise CalibrationError(f"{where} has an unknown key '{key}'.{did_you_mean(key, hints)}")
        if type(value) is not hints[key]:
            raise CalibrationError(
                f"{where}: '{key}' must be {_TYPE_NAMES[hints[key]]}, found {value!r}."
            )
        least = 0 if key in _MAY_BE_ZERO else 1
        most = MOST_QUESTIONS if key.endswith("questions_each") else MOST
        if isinstance(value, int) and not least <= value <= most:
            raise CalibrationError(f"{where}: {key} = {value} cannot be: give {least} to {most}.")
    for item in fields(kind):  # pyright: ignore[reportArgumentType]
        if item.name in hints and item.name not in values and item.default is MISSING:
            raise CalibrationError(f"{where} needs the key '{item.name}'.")
        if values.get(item.name) == "" and item.default is MISSING and item.name != "join":
            raise CalibrationError(f"{where}: '{item.name}' must not be empty.")
    return kind(**values, **ready)
