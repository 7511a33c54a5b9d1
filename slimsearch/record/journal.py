"""An append-only file of JSON lines, each with its CRC: the only truth about a run.

A line is `<crc32, 8 hex digits> <json>`. A torn last line (a crash while writing) is dropped; a
bad line in the middle is refused with its offset, because what follows it cannot be trusted.
"""

import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from slimsearch import files
from slimsearch.errors import RunError

Record = dict[str, Any]
LONGEST = 64 << 20  # bytes of a line; a file of another making may have no end
_INSIDE = re.compile(rb".[0-9a-f]{8} \{", re.DOTALL)  # another line's beginning, behind the first


def read(file: Path) -> tuple[list[Record], list[int]]:
    """All whole records with the offset of each, and one more: where the next one belongs."""
    texts, offsets = lines(file)
    places = zip(texts, offsets, strict=False)
    return [parse(file, text, at, n) for n, (text, at) in enumerate(places, 1)], offsets


def lines(file: Path) -> tuple[list[bytes], list[int]]:
    """The same as text, for whoever need not know what each says."""
    found: list[bytes] = []
    offsets = [0]
    try:
        with file.open("rb") as stream:
            while line := stream.readline(LONGEST):
                whole = line.endswith(b"\n")
                text = _checked(line[:-1]) if whole else None
                if text is None:
                    if not whole and len(line) < LONGEST:
                        break  # the last line, cut off
                    if whole and not _INSIDE.search(line) and not stream.read(1):
                        break
                    raise _damaged(file, offsets[-1], len(found) + 1)
                found.append(text)
                offsets.append(offsets[-1] + len(line))
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}.") from None
    return found, offsets


def parse(file: Path, text: bytes, offset: int, line: int) -> Record:
    """The record that a line holds."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _damaged(file, offset, line)
    return found


class Journal:
    """Appends records; each is on disk when `append` returns. Opening changes nothing."""

    def __init__(self, file: Path):
        self.file = file
        new = not file.exists()
        with files.writing(file):
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            if new:
                files.sync_folder(file.parent)
        try:
            self.found, self.offsets = lines(file)
        except RunError:
            self.close()
            raise
        self.end = self.offsets[-1]
        self.torn = os.fstat(self._handle).st_size - self.end  # bytes of a line never finished

    def replay(self) -> Iterator[tuple[Record, int]]:
        """Each record that was found, with its offset; once, and then they are forgotten."""
        found, offsets = self.found, self.offsets
        self.found, self.offsets = [], []
        for line, (text, offset) in enumerate(zip(found, offsets, strict=False), 1):
            yield parse(self.file, text, offset, line), offset

    def append(self, record: Record) -> None:
        text = files.to_json(record).encode()
        line = b"%08x %s\n" % (crc32(text), text)
        with files.writing(self.file):
            try:
                if self.torn:
                    os.ftruncate(self._handle, self.end)
                    self.torn = 0
                if os.pwrite(self._handle, line, self.end) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._handle)
            except OSError:
                os.ftruncate(self._handle, self.end)
                raise
        self.end += len(line)

    def close(self) -> None:
        os.close(self._handle)


def _checked(line: bytes) -> bytes | None:
    """What a line says, or None where it is not whole."""
    mark, _, text = line.partition(b" ")
    return text if len(mark) == 8 and b"%08x" % crc32(text) == mark else None


def _damaged(file: Path, offset: int, line: int) -> RunError:
    return RunError(
        f"{file} is damaged at byte {offset} (line {line}). Lines after it cannot be trusted; "
        f"restore the file or cut it at that byte to go on from there."
    )
