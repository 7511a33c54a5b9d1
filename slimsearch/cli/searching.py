"""What run and resume share: progress, how to go on, the final table, what to type next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

from slimsearch import display
from slimsearch.api import runs
from slimsearch.api.runs import Result
from slimsearch.display import Display
from slimsearch.errors import ResourceError, Stopped, is_out_of_memory
from slimsearch.record import history
from slimsearch.settings import Settings


def start(settings: Settings) -> None:
    """A new search, with its result printed."""
    folder = Path(settings.out) if settings.out else runs.free_folder(settings)
    chosen = replace(settings, out=str(folder))
    _carry_out(folder, lambda watch: runs.search(chosen, watch), settings.json)


def go_on(folder: Path, allow_drift: bool, where: Mapping[str, Any], as_json: bool) -> None:
    """An interrupted search, with its result printed."""

    def work(watch: Display) -> Result:
        return runs.resume(folder, watch, allow_drift=allow_drift, where=where)

    _carry_out(folder, work, as_json)


def _carry_out(folder: Path, work: Callable[[Display], Result], as_json: bool) -> None:
    with Display() as watch:
        try:
            result = work(watch)
        except Stopped as stop:
            raise Stopped(f"{stop} {_how_to_go_on(folder)}", stop.exit_code) from stop
        except ResourceError as error:
            raise ResourceError(f"{error} {_how_to_go_on(folder)}") from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                f"Out of memory. Free some, or begin anew with a smaller --batch-tokens. "
                f"{_how_to_go_on(folder)}"
            ) from error
    if as_json:
        display.as_json(result.as_dict())
        return
    display.results([asdict(row) for row in result.table])
    seconds = ", ".join(f"{name} {spent:.1f}" for name, spent in result.seconds.items())
    display.say(f"Seconds: {seconds}; {sum(result.seconds.values()):.1f} in all.")
    if result.correlation is not None:
        display.say(
            f"Stitched and exact scores of the {result.finalists} finalists: rank correlation "
            f"{result.correlation:.2f}."
        )
    for line in result.drift:
        display.say(f"Drift: {line}.")
    display.say("Next:")
    for line in _next(result):
        display.say(f"  {line}")


def _next(result: Result) -> list[str]:
    sees = any("accuracy" in row.figures for row in result.table)
    picture = " --image picture.png" if sees else ""
    folder, best, model = (
        quote(str(place)) for place in (result.folder, result.folder / "best.toml", result.model)
    )
    return [
        f"slimsearch show {best}",
        f"slimsearch status {folder}",
        f"slimsearch report {folder}",
        f"slimsearch generate {model} --prompt 'your question'{picture}",
        f"slimsearch export {folder} --to hf --out FOLDER",
    ]


def _how_to_go_on(folder: Path) -> str:
    """The command that goes on, where there is something to go on with."""
    file = folder / history.JOURNAL
    if not file.is_file() or not file.stat().st_size:
        return "Nothing was found out yet; start it again."
    return f"Go on with: {history.resume_line(folder)}"
