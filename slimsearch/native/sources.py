"""What the C library is compiled from. Building a wheel imports this, with nothing installed."""

from pathlib import Path

FOLDER = Path(__file__).parent / "kernel"
SOURCES = tuple(sorted(FOLDER.glob("*.c")))
HEADERS = tuple(sorted(FOLDER.glob("*.h")))
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-Wno-psabi", "-lm")
BUILT = FOLDER / "native.so"  # where a wheel holds it
