"""What runs in a process of its own and comes to harm there, by one of the faults below."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from slimsearch.api import exporting, runs
from slimsearch.errors import SlimsearchError
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings
from slimsearch.surgery import level_store


class Fault(Protocol):
    """Set up in the victim before its work begins."""

    def prepare(self) -> None: ...


@dataclass(frozen=True)
class FailingStep:
    """The n-th of all writes, syncs and renames fails, or the process is killed at it."""

    number: int
    error: int = 0  # an errno; 0: killed instead
    after: bool = False  # killed once the step is done, not before

    def prepare(self) -> None:
        _count_steps(self._reached)

    def _reached(self, number: int, step: Callable[[], Any]) -> Any:
        if number != self.number:
            return step()
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        if self.after:
            with suppress(OSError):
                step()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class FullDisk:
    """No file can grow beyond so many bytes; torch's and safetensors' own writes included."""

    most: int

    def prepare(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.most))


@dataclass(frozen=True)
class ReadOnly:
    """The folder and all in it cannot be written, by root neither."""

    folder: Path

    def prepare(self) -> None:
        for path in (*self.folder.rglob("*"), self.folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        # Root gives up the two capabilities by which permission bits do not bind it.
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()
        libc.capget(header, data)
        for part in (0, 1):  # effective, permitted
            data[part] &= ~0b110
        if libc.capset(header, data):
            raise OSError(ctypes.get_errno(), "capset")


@dataclass(frozen=True)
class CountingSteps:
    """No fault: reports each step's name, so that a test knows how many there are."""

    def prepare(self) -> None:
        _count_steps(lambda _, step: step())


@dataclass(frozen=True)
class Work:
    """What the victim does: search, resume, or export a finished run."""

    kind: str
    run: Path
    settings: Settings


class Telling(Watch):
    """Tells of every stage that begins."""

    def __init__(self, pipe: Connection):
        super().__init__()
        self._pipe = pipe

    def begin(self, name: str, steps: int) -> None:
        self._pipe.send(("stage", name))


steps_seen = 0


def main(pipe: Connection, work: Work, fault: Fault | None) -> None:
    """The victim's whole life; says how it ended, if it can."""
    torch.set_num_threads(1)
    try:
        assert "faults.warm" in sys.modules, "the server imported nothing: each victim takes long"
        if fault is not None:
            fault.prepare()
        watch = Telling(pipe)
        if work.kind == "search":
            runs.search(work.settings, watch)
        elif work.kind == "resume":
            runs.resume(work.run, watch)
        else:
            exporting.export(str(work.run), ["hf"], work.run.with_name(work.run.name + "-export"))
    except SlimsearchError as error:
        pipe.send(("refused", f"{error.exit_code} {error}"))
    except BaseException:
        pipe.send(("broke", traceback.format_exc()))
    else:
        pipe.send(("done", str(steps_seen)))


def _count_steps(reached: Callable[[int, Callable[[], Any]], Any]) -> None:
    """Has every write, sync and rename from here on go through `reached`, numbered from 1."""
    places = (
        (os, "pwrite"), (os, "fsync"), (os, "replace"), (os, "mkdir"), (os, "ftruncate"),
        (shutil, "copyfile"), (level_store, "save_file"), (Path, "write_text"),
    )  # fmt: skip
    for owner, name in places:
        inner = getattr(owner, name)

        def counted(*given: Any, inner: Any = inner, name: str = name, **named: Any) -> Any:
            global steps_seen
            if name == "mkdir" and os.path.isdir(given[0]):
                return inner(*given, **named)  # nothing is to be done, so nothing can fail
            steps_seen += 1
            return reached(steps_seen, lambda: inner(*given, **named))

        setattr(owner, name, counted)
