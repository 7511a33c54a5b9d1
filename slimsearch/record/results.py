"""What `slimsearch eval` leaves behind, one task of one model in two files beside each other.

TASK.json, written when it begins (without figures) and again at its end:

    {"format": 1, "task": "scienceqa", "finished": true, "headline": "accuracy",
     "model": {"name": "champion", "source": "runs/first", "base": "demo", "sparsity": 0.5,
               "runtime": "torch", "dtype": "", "fingerprint": "<sha256>"},
     "data": {"name": "ScienceQA test", "source": "<--data>", "fingerprint": "<sha256>"},
     "choices": {"limit": 0, "seed": 0, ...},       what else the answers follow from
     "count": 424, "units": 424,                    questions, and what is resampled
     "figures": {"accuracy": {"value": 74.76, "low": 70.5, "high": 78.8}, ...},
     "breakdown": {"NAT": {"accuracy": {...}}, ...},
     "against": [{"model": {...}, "count": 424,     where --against named another model
                  "figures": {"accuracy": {"value": -1.2, "low": -2.4, "high": 0.1, "p": 0.07}},
                  "mcnemar": {"only_first": 3, "only_second": 8, "p": 0.23}}],
     "judge": {"url": "...", "model": "..."},       where one graded the answers
     "submission": "scienceqa.submission.json",     the official form, where there is one; a
                                                    folder for MME
     "notes": ["..."]}

Accuracies, F1 and the like are percentages, as papers print them; perplexities are perplexities.
`low` and `high` bound the 95% interval. `figures` is empty where nothing could be marked: the data
has no answers, or nobody graded them.

TASK.jsonl, a line for each question, appended as answers come and written again with marks:

    {"id": "163", "groups": ["LAN", "NO", "G1-6"], "prompt": "...", "picture": null, "answer": "B",
     "read": "B", "expected": ["A"], "marks": {"right": 0.0, "count": 1.0}}

`read` is what the task read out of the answer; `picture` is a path, or null for none.
A run's results stand in RUN/eval/MODEL/, MODEL being `champion`, `dense`, `uniform` or another's
name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimsearch import files
from slimsearch.errors import RunError

FORMAT = 1
FOLDER = "eval"  # in a run or an export
LOCK = "lock"
CHAMPION, DENSE, UNIFORM = "champion", "dense", "uniform"

Line = dict[str, Any]


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes from evaluating into a folder; the kernel lets go at the latest."""
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"Another process is evaluating into {folder}. Wait for it, or choose another "
                f"place with --out."
            ) from None
        yield
    finally:
        os.close(handle)


def all_in(folder: Path) -> list[dict[str, Any]]:
    """Every finished result below a folder, each with its own file's path as `file`."""
    found = []
    for file in sorted(folder.glob("**/*.json")):
        result = _object(file)
        if result.get("format") == FORMAT and result.get("finished"):
            found.append({**result, "file": str(file)})
    return found


def lines_of(result: Mapping[str, Any]) -> list[Line]:
    """The questions of a result that `all_in` found."""
    return read_lines(Path(result["file"]).with_suffix(".jsonl"))


def copy(source: Path, target: Path) -> None:
    """Finished results with their logs, in another folder."""
    with files.writing(target):
        target.mkdir(parents=True, exist_ok=True)
        for result in all_in(source):
            for file in Path(result["file"]).parent.glob(f"{Path(result['file']).stem}.*"):
                if file.is_dir():
                    shutil.copytree(file, target / file.name)
                else:
                    shutil.copyfile(file, target / file.name)


def read(file: Path) -> dict[str, Any] | None:
    """A result, finished or not; None where there is none."""
    if not file.is_file():
        return None
    found = _object(file)
    if found.get("format") != FORMAT:
        raise RunError(
            f"{file} is no result of this slimsearch's eval. Move it away, or choose another --out."
        )
    return found


def write(file: Path, result: Mapping[str, Any]) -> None:
    with files.writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, files.to_json({"format": FORMAT, **result}, indent=2).encode())


def read_lines(file: Path) -> list[Line]:
    """The whole lines of a log; a torn last one, of a process that was killed, is left out."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    found = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise RunError(
                f"{file}, line {number} is damaged. Delete that line: its question is asked again."
            ) from None
    return found


def write_lines(file: Path, lines: Sequence[Line]) -> None:
    """The whole log at once."""
    text = "".join(f"{files.to_json(line)}\n" for line in lines)
    files.write(file, text.encode())


def cut_torn(file: Path) -> None:
    """Takes away what a killed process left of a last line."""
    if file.is_file():
        with files.writing(file), file.open("rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)


def append_lines(file: Path, lines: Iterable[Line]) -> None:
    """Adds lines, which are on disk when this returns."""
    text = "".join(f"{files.to_json(line)}\n" for line in lines)
    with files.writing(file), file.open("ab") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is no readable JSON ({error}). Remove it or restore it.") from None
    return found if isinstance(found, dict) else {}
