"""Whole files or none: everything is written beside its place, synced, then renamed into it.

What a killed process leaves half-written ends in `.partial`, and `sweep` takes it away.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from slimsearch.errors import ResourceError

PARTIAL = ".partial"
LONGEST_TOML = 16 << 20  # bytes
Seal = dict[str, Any]  # a file's length and SHA-256, as a journal keeps them


def write(file: Path, content: bytes) -> None:
    """Replaces a file in one step."""
    with (
        writing(file),
        tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=f".{file.name}-", suffix=PARTIAL, delete=False
        ) as stream,
    ):
        temporary = Path(stream.name)
        try:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(file.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` at the end of the block, or vanishes with it."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=PARTIAL, dir=folder.parent)
        )
        try:
            yield temporary
            temporary.chmod(0o755)
            for path in (*temporary.rglob("*"), temporary):
                _sync(path)
            temporary.replace(folder)
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns the system's refusals (full disk, no permission) into a clear error."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(
            f"{place} could not be written: {reason}. Free space or choose "
            f"another place; what was written before is whole."
        ) from error


def free_folder(first: Path) -> Path:
    """This folder, or the first of `first-2`, `first-3` and so on that does not exist."""
    folder, number = first, 2
    while folder.exists():
        folder, number = first.with_name(f"{first.name}-{number}"), number + 1
    return folder


def remove(folder: Path) -> None:
    """Removes a folder of our own, if it is there."""
    if folder.is_dir():
        with writing(folder):
            shutil.rmtree(folder)


def sweep(folder: Path) -> None:
    """Removes what processes that were killed had half-written here."""
    for path in folder.glob(f"*{PARTIAL}"):
        with writing(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def read_toml(file: Path) -> dict[str, Any]:
    """What a TOML file says; OSError or ValueError where it cannot be read, or never ends."""
    size = file.stat().st_size
    if not file.is_file():
        raise OSError(errno.EINVAL, "it is a folder, pipe or device")
    if size > LONGEST_TOML:
        raise ValueError(f"it is larger than {LONGEST_TOML >> 20} MiB")
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def to_toml(value: str | float | int | bool) -> str:
    """A value as TOML says it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(
            f"\\{letter}" if letter in '"\\' else letter if letter.isprintable()
            else f"\\U{ord(letter):08x}" for letter in value
        )  # fmt: skip
        return f'"{escaped}"'
    return repr(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON, which has no infinity and no NaN: both become null."""
    separators = (",", ":") if indent is None else None
    return json.dumps(_finite(value), indent=indent, separators=separators, allow_nan=False)


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(file: Path) -> Seal:
    """What `unlike` later holds the file against."""
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def seals(folder: Path, found: Iterable[Path]) -> dict[str, Seal]:
    """Of files in a folder, by their names from there; what else was found is left out."""
    return {file.relative_to(folder).as_posix(): seal(file) for file in found if file.is_file()}


def unlike(file: Path, sealed: Seal) -> str:
    """How a file differs from the one that was sealed; nothing where it is the same."""
    if not file.is_file():
        return "is missing"
    size, wanted = file.stat().st_size, sealed["bytes"]
    if size < wanted:
        return f"is cut short: it ends at byte {size} of {wanted}"
    if size > wanted:
        return f"goes on behind byte {wanted}, where it should end"
    if sha256(file) != sealed["sha256"]:
        return f"is damaged: its {size} bytes do not have the SHA-256 that was recorded"
    return ""


def sync_folder(folder: Path) -> None:
    """Makes a rename in this folder survive a power cut."""
    _sync(folder)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
