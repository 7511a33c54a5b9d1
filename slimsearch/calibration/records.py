"""Records of a LLaVA-style .json, a .jsonl or a folder of pictures; see turns.py for their text.

Records and lines are counted from 1. Whether a record makes sense is looked at only once it is
used: files of 600,000 records are common.
"""

import json
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from slimsearch.errors import CalibrationError

PICTURE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LIMIT = 2 << 30  # bytes of a file of records


@dataclass(frozen=True, slots=True)
class Record:
    origin: str  # "pairs.json, record 3 (id 000019465)"
    folder: Path
    image: str  # as written, relative to the folder
    content: dict[str, Any]


def read_records(place: Path) -> tuple[list[Record], list[str]]:
    """Every record with one picture, and notes on those that were left out."""
    if not os.path.exists(place):  # unlike Path.exists, never raises
        raise CalibrationError(
            f"There are no pairs at {place}. Give a LLaVA-style .json, a .jsonl or a folder of "
            f"pictures, or --pairs none."
        )
    if place.is_dir():
        return _in_folder(place), []
    kind = place.suffix.lower()
    if kind not in (".json", ".jsonl") or not place.is_file():
        raise CalibrationError(
            f"Pairs {place} are of no known kind. Give a LLaVA-style .json, a .jsonl or a folder "
            f"of pictures."
        )
    items = _from_json(place) if kind == ".json" else _from_lines(place)
    return _with_one_picture(items, place)


def picture_of(record: Record) -> Path:
    """Where the record's picture stands: in the file's folder or the `images` folder there."""
    path = PurePosixPath(record.image.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(record.image).anchor or ".." in path.parts:
        raise CalibrationError(
            f"{record.origin}: the picture {record.image!r:.999} leaves the folder "
            f"{record.folder}. Write it relative to that folder, without '..'."
        )
    places = (record.folder / path, record.folder / "images" / path)
    for place in places:
        if os.path.isfile(place):  # unlike Path.is_file, never raises
            return place
    raise CalibrationError(
        f"{record.origin}: there is no picture {record.image!r:.999} in {record.folder} or its "
        f"folder 'images'. Put it there or correct 'image'."
    )


def _in_folder(folder: Path) -> list[Record]:
    try:
        names = sorted(
            file.name for file in folder.iterdir()
            if file.suffix.lower() in PICTURE_FILES and not file.name.startswith(".")
        )  # fmt: skip
    except OSError as error:
        raise CalibrationError(f"{folder} cannot be read: {error.strerror}.") from None
    if not names:
        raise CalibrationError(
            f"The folder {folder} holds no picture ({', '.join(PICTURE_FILES)}); folders inside "
            f"it are not searched. Give the folder that the pictures are in."
        )
    return [Record(f"{folder.name}, {name}", folder, name, {}) for name in names]


def _from_json(file: Path) -> list[tuple[str, Any]]:
    try:
        found = json.loads(_content(file).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        hint = " If it holds an object a line, rename it to .jsonl."
        raise CalibrationError(
            f"{file} is no JSON: {error}. Give a list of LLaVA-style records."
            f"{hint if str(error).startswith('Extra data') else ''}"
        ) from None
    if not isinstance(found, list):
        kind = "an object" if isinstance(found, dict) else repr(found)[:80]
        raise CalibrationError(
            f"{file} holds no list of records but {kind}. Give a list of objects "
            f"with 'image' and 'conversations'."
        )
    return [(f"{file.name}, record {number}", item) for number, item in enumerate(found, 1)]


def _from_lines(file: Path) -> list[tuple[str, Any]]:
    items = []
    lines = _content(file).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append((f"{file.name}, line {number}", json.loads(line.decode("utf-8"))))
        except (ValueError, RecursionError) as error:
            raise CalibrationError(
                f"{file}, line {number} is no JSON: {error}. Each line is an object with 'image' "
                f"and 'text' or 'question'."
            ) from None
    return items


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > LIMIT:
            raise CalibrationError(
                f"{file} is larger than {LIMIT >> 30} GiB. Give a file with fewer records."
            )
        return file.read_bytes()
    except OSError as error:
        raise CalibrationError(f"{file} cannot be read: {error.strerror}.") from None


def _with_one_picture(items: list[tuple[str, Any]], file: Path) -> tuple[list[Record], list[str]]:
    """Leaves out records without a picture and with several; anything else must be sound."""
    records: list[Record] = []
    without = several = 0
    for place, item in items:
        if not isinstance(item, dict):
            raise CalibrationError(f"{file}: {place} is no object. Give objects with 'image'.")
        origin = f"{place} (id {_named(item['id'])})" if "id" in item else place
        image = item.get("image")
        if isinstance(image, list) and len(image) == 1:
            image = image[0]
        if image is None or image in ("", []):
            without += 1
        elif isinstance(image, list):
            several += 1
        elif not isinstance(image, str):
            raise CalibrationError(
                f"{origin}: 'image' must be a path, found {reprlib.repr(image)}. Correct {file}."
            )
        else:
            records.append(Record(origin, file.parent, image, item))
    if not records:
        raise CalibrationError(
            f"{file} has no record with one picture ({len(items)} records, {without} without "
            f"'image', {several} with several). Give records with 'image', or --pairs none."
        )
    notes = []
    if without:
        notes.append(f"{file}: {without} of {len(items)} records have no picture; left out.")
    if several:
        notes.append(f"{file}: {several} of {len(items)} records have several pictures; left out.")
    return records, notes


def _named(value: Any) -> str:
    """A record's id, however long or nested it is."""
    return (value if isinstance(value, str) else reprlib.repr(value))[:80]
