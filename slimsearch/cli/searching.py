"""What run and resume share: progress, signals, the final table, what to type next."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from slimsearch import api, display
from slimsearch.api import Result
from slimsearch.display import Display
from slimsearch.errors import ResourceError, Stopped
from slimsearch.settings import Settings


def start(settings: Settings) -> None:
    """A new search, with its result printed."""
    folder = Path(settings.out) if settings.out else api.free_folder(settings)
    chosen = replace(settings, out=str(folder))
    _carry_out(folder, lambda watch: api.search(chosen, watch), settings.json)


def go_on(folder: Path, as_json: bool) -> None:
    """An interrupted search, with its result printed."""
    _carry_out(folder, lambda watch: api.resume(folder, watch), as_json)


def _carry_out(folder: Path, work: Callable[[Display], Result], as_json: bool) -> None:
    with Display() as watch, _stoppable(folder):
        try:
            result = work(watch)
        except ResourceError as error:
            raise ResourceError(f"{error} {_how_to_go_on(folder)}".strip()) from error
    if as_json:
        display.as_json(result.as_dict())
        return
    display.results([asdict(row) for row in result.table])
    seconds = ", ".join(f"{name} {spent:.1f}" for name, spent in result.seconds.items())
    display.say(f"Seconds: {seconds}; {sum(result.seconds.values()):.1f} in all.")
    if result.correlation is not None:
        display.say(
            f"Stitched and exact scores of the finalists: rank correlation "
            f"{result.correlation:.2f}."
        )
    display.say("Next:")
    for line in _next(result):
        display.say(f"  {line}")


def _next(result: Result) -> list[str]:
    sees = any("accuracy" in row.figures for row in result.table)
    picture = " --image picture.png" if sees else ""
    return [
        f"slimsearch show {result.folder / 'best.toml'}",
        f"slimsearch status {result.folder}",
        f"slimsearch generate {result.model} --prompt 'your question'{picture}",
        f"slimsearch export {result.folder} --to hf --out FOLDER",
    ]


def _how_to_go_on(folder: Path) -> str:
    if not (folder / "journal.jsonl").is_file():
        return ""
    return f"Go on with: slimsearch resume {folder}"


@contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops in order; a second one ends the process at once."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Stopped(f"stopped. {_how_to_go_on(folder)}".strip(), 128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
