"""Our C sources as libraries: compiled once for each machine type into the user's cache folder.

Without a compiler, or with a folder that cannot be written, there is no library, and whoever asked
for it goes on without. Only the standard library is used here: building a wheel imports it too.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from slimsearch.processor import processor_flags

COMPILERS = ("cc", "gcc", "clang")
PATIENCE = 600  # seconds for a compiler, which may share its processor with many


def library(
    name: str, sources: Sequence[Path], flags: Sequence[str], beside: Sequence[Path] = ()
) -> ctypes.CDLL | None:
    """The library of these sources, or None where it cannot be built; `beside` are its headers."""
    try:
        compiler = found_compiler()
        if compiler is None:
            return None
        return ctypes.CDLL(str(_built(compiler, name, sources, flags, beside)))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: no home folder
        return None


def found_compiler() -> str | None:
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def build(compiler: str, sources: Sequence[Path], flags: Sequence[str], target: Path) -> None:
    """Compiles a library to `target`: whole or not at all, also with two processes at it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as fresh, ThreadPoolExecutor() as pool:

        def run(*command: str) -> None:
            subprocess.run(
                [compiler, *command, *flags], check=True, capture_output=True, timeout=PATIENCE
            )

        objects = [f"{fresh}/{number}.o" for number in range(len(sources))]
        made = zip(sources, objects, strict=True)
        list(pool.map(lambda pair: run("-c", str(pair[0]), "-o", pair[1]), made))
        built = Path(fresh) / target.name
        run(*objects, "-o", str(built))
        built.replace(target)


def _built(
    compiler: str,
    name: str,
    sources: Sequence[Path],
    flags: Sequence[str],
    beside: Sequence[Path],
) -> Path:
    """The library for these sources, compiler and processor, compiled if it is not there yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "slimsearch"
    target = folder / f"{name}-{_key(compiler, [*sources, *beside], flags)}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        build(compiler, sources, flags, target)
    return target


def _key(compiler: str, files: Sequence[Path], flags: Sequence[str]) -> str:
    """-march=native ties a library to the processor; a home folder may be shared by many."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60)
    processor = " ".join(sorted(processor_flags())) or platform.processor()
    facts = (version.stdout, platform.machine().encode(), processor.encode())
    contents = (file.read_bytes() for file in files)
    return sha256(b"\0".join((*contents, *facts, " ".join(flags).encode()))).hexdigest()[:16]
