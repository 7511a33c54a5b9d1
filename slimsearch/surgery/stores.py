"""Level stores shared by runs of the same model, calibration and solver: solved once.

A store stands in a folder of its own, named after its fingerprint, but it is not trusted for its
name: the whole fingerprint and the seal of every file must be the same. Runs hold hard links to
the files, so that no run misses a store that is removed here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from slimsearch import files

MANIFEST = "manifest.json"
Levels = Mapping[str, Iterable[float]]


def find(shared: Path, fingerprint: Mapping[str, Any], levels: Levels) -> tuple[Path | None, str]:
    """A sound store that holds these levels and maybe more; else none, and what is wrong."""
    trouble = ""
    for folder in sorted(shared.glob(f"{_name(fingerprint)}-*")):
        if folder.suffix == files.PARTIAL:
            continue
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            if manifest["fingerprint"] != _plain(fingerprint):
                continue
            held = {matrix: set(some) for matrix, some in manifest["levels"].items()}
            if any(not set(some) <= held.get(m, set()) for m, some in _listed(levels).items()):
                continue
            wrong = [
                f"{folder / name} {unlike}"
                for name, sealed in manifest["files"].items()
                if (unlike := files.unlike(folder / name, sealed))
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = [f"{folder / MANIFEST} cannot be read ({error})"]
        if not wrong:
            return folder, ""
        trouble = wrong[0]
    return None, trouble


def take(store: Path, folder: Path) -> None:
    """Makes a store's files a run's own, by links where the file system allows."""
    for file in sorted(store.glob("*.safetensors")):
        _link(file, folder / file.name)


def keep(shared: Path, fingerprint: Mapping[str, Any], levels: Levels, source: Path) -> None:
    """Shares a run's store; one of the same levels that stood there is replaced."""
    listed = _listed(levels)
    place = shared / f"{_name(fingerprint)}-{_name(listed)}"
    files.remove(place)
    with files.new_folder(place) as folder:
        found = sorted(source.glob("*.safetensors"))
        for file in found:
            _link(file, folder / file.name)
        manifest = {
            "fingerprint": fingerprint,
            "levels": listed,
            "files": files.seals(source, found),
        }
        (folder / MANIFEST).write_text(files.to_json(manifest, indent=1), "utf-8")


def _listed(levels: Levels) -> dict[str, list[float]]:
    return {m: sorted({round(level, 6) for level in some}) for m, some in sorted(levels.items())}


def _name(value: Any) -> str:
    ordered = json.dumps(_plain(value), sort_keys=True)
    return sha256(ordered.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return json.loads(files.to_json(value))


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, target)
