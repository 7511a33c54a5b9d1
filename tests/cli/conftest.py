import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from slimsearch.cli import main
from slimsearch.settings import Settings

SLIMSEARCH = Path(sys.executable).with_name("slimsearch")


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def slimsearch(monkeypatch, capfd) -> Callable[..., Said]:
    """The command `slimsearch`, as its entry point is called, within this process."""

    def called(*words: object) -> Said:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["slimsearch", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        return Said(code, *capfd.readouterr())

    return called


@pytest.fixture
def process() -> Callable[..., Said]:
    """The command `slimsearch` as a process of its own."""

    def called(*words: object, folder: Path | None = None) -> Said:
        done = subprocess.run(
            [SLIMSEARCH, *map(str, words)], capture_output=True, text=True, cwd=folder, timeout=200
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return called


@pytest.fixture
def flags() -> Callable[..., list[str]]:
    """Settings as flags; only what differs from the defaults."""

    def written(settings: Settings, **changes: object) -> list[str]:
        words = []
        for item in fields(Settings):
            value = changes.get(item.name, getattr(settings, item.name))
            if value != item.default:
                words += [f"--{item.name.replace('_', '-')}", str(value)]
        return words

    return written
