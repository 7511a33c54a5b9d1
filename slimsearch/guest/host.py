"""Our end of the guest: starts DeepSparse's process, sends orders, and outlives its crashes."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from slimsearch.errors import EngineError
from slimsearch.guest import inside
from slimsearch.processor import processor_flags

WANTED = "Give --deepsparse-python a Python 3.8 to 3.11 that has deepsparse 1.8.0."
TELLING = (  # marks of a last word
    "Received signal", "Assertion", "memory. ", "error", "Error", "not supported",
)  # fmt: skip
LONGEST = 300  # characters of it that are shown


@dataclass(frozen=True)
class Compiled:
    """An engine in the guest: one graph, compiled for its shapes."""

    name: str
    seconds: float
    supported: float  # share of the graph that the engine runs itself, 1.0 when it takes it whole
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Guest:
    """DeepSparse in a process of its own; use it as a context manager, or close it."""

    def __init__(self, interpreter: str = "", cores: int = 0):
        """`interpreter` is a Python that has deepsparse, ours where empty; 0 cores: all."""
        if not interpreter and (reason := missing()):
            raise EngineError(f"DeepSparse cannot run here: {reason}")
        python = interpreter or sys.executable
        self.cores = cores
        self._doing = "starting"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the guest
        command = [python, "-u", str(Path(inside.__file__).resolve())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "NM_DISABLE_ANALYTICS": "1"},
                start_new_session=True,  # Ctrl-C is for us; we close the guest ourselves
            )
        except OSError as error:
            self._errors.close()
            raise EngineError(f"{python} cannot be started ({error.strerror}). {WANTED}") from None
        try:
            self.about: Mapping[str, Any] = self._answer()[0]
        except EngineError as error:
            self.close()
            raise EngineError(f"{python} cannot run DeepSparse: {error} {WANTED}") from None

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the guest, whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._errors.close()

    @property
    def process(self) -> int:
        return self._process.pid

    def compile(self, name: str, file: Path) -> Compiled:
        """Compiles a graph of fixed shapes under a name."""
        about = f"compiling {file} ({_size(file)}, {self.cores or 'all'} cores)"
        found, _ = self._order(about, "compile", name=name, file=str(file), cores=self.cores)
        return Compiled(
            name, found["seconds"], found["supported"],
            tuple(found["inputs"]), tuple(found["outputs"]),
        )  # fmt: skip

    def drop(self, name: str) -> None:
        """Frees an engine's memory."""
        self._order(f"dropping {name}", "drop", name=name)

    def hold(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Sets fp32 arrays of zeros up in the guest, to be named by later runs."""
        self._order("holding arrays", "hold", shapes={name: list(s) for name, s in shapes.items()})

    def release(self) -> None:
        """Forgets every held array."""
        self._order("releasing arrays", "release")

    def run(
        self,
        name: str,
        inputs: Sequence[ndarray | str],
        keep: Sequence[tuple[str, int, int] | None],
    ) -> list[ndarray]:
        """One pass. An input that is a name is a held array; `keep` says for each output where in
        a held array it goes (name, first place on axis 2, how many of its last), or None: here."""
        held = [one if isinstance(one, str) else None for one in inputs]
        given = [one for one in inputs if not isinstance(one, str)]
        return self._order(f"running {name}", "run", given, name=name, held=held, keep=keep)[1]

    def time(self, name: str, inputs: Sequence[ndarray], repeats: int) -> list[float]:
        """Seconds of each of several passes, measured beside the engine."""
        return self._order(f"timing {name}", "time", inputs, name=name, repeats=repeats)[0][
            "seconds"
        ]

    def analyse(self, file: Path, inputs: Sequence[ndarray], repeats: int = 5) -> dict[str, Any]:
        """The engine's account of every layer of a graph."""
        return self._order(
            f"analysing {file}", "analyse", inputs,
            file=str(file), cores=self.cores, repeats=repeats,
        )[0]["analysis"]  # fmt: skip

    def _order(
        self, doing: str, order: str, arrays: Any = (), **given: Any
    ) -> tuple[dict[str, Any], list[ndarray]]:
        self._doing = doing
        contiguous = [np.ascontiguousarray(array) for array in arrays]
        try:
            inside.send(self._process.stdin, {"order": order, **given}, contiguous)
        except OSError:
            raise self._died() from None
        return self._answer()

    def _answer(self) -> tuple[dict[str, Any], list[ndarray]]:
        try:
            header, arrays = inside.receive(self._process.stdout)
        except EOFError:
            raise self._died() from None
        if "error" in header:
            raise EngineError(f"DeepSparse failed while {self._doing}: {header['error']}.")
        return header, arrays

    def _died(self) -> EngineError:
        """What to say of a guest that has gone: how, at what, and its last words."""
        code = self._process.wait()
        how = f"ended with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (most often: out of memory)"
        said = self._last_words()
        return EngineError(
            f"DeepSparse's process {how} while {self._doing}. Other runtimes go on."
            + (f" Its last words: {said}" if said else "")
        )

    def _last_words(self) -> str:
        self._errors.seek(0)
        return last_words(self._errors.read().decode("utf-8", "replace"))


def last_words(said: str) -> str:
    """The last line of what a guest said that sounds like a reason, or the last line."""
    full = [line.strip() for line in said.split("\n") if line.strip()]
    telling = [line for line in full if any(mark in line for mark in TELLING)]
    return (telling or full or [""])[-1][:LONGEST]


def missing() -> str:
    """Why this interpreter cannot hold DeepSparse, and what to do; empty where it can."""
    elsewhere = "Use another runtime"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        where = f"{platform.system()} {platform.machine()}"
        return f"it has wheels for Linux x86-64 only, and this is {where}. {elsewhere}."
    if "avx2" not in processor_flags():
        return f"this processor has no AVX2. {elsewhere}."
    try:
        found = metadata.version("deepsparse")
    except metadata.PackageNotFoundError:
        if sys.version_info >= (3, 12):
            return (
                f"it has wheels for Python 3.8 to 3.11 only, and this is "
                f"{platform.python_version()}. Name one that has it with --deepsparse-python, or "
                f"use another runtime."
            )
        return f"it is not installed: pip install 'slimsearch[deepsparse]'. {elsewhere} otherwise."
    if found != inside.WANTED:
        return f"version {found} is installed, and only {inside.WANTED} runs. {elsewhere}."
    return ""


def _size(file: Path) -> str:
    """The size of a graph with the weights that lie beside it."""
    try:
        beside = [one for one in file.parent.iterdir() if one.suffix != file.suffix]
        size = sum(one.stat().st_size for one in (file, *beside))
    except OSError:
        return "missing"
    return f"{size / 2**20:.0f} MiB"
