"""Reads a .txt or .jsonl file: UTF-8, at most so many bytes of it, refused where it is no text."""

import json
import os
import re
from pathlib import Path

from slimsearch.errors import CalibrationError

WORD = 1 << 16  # characters without white space, of which a tokenizer makes gigabytes
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_MARK = b"\xef\xbb\xbf"  # a UTF-8 byte order mark, harmless


def read_text(file: Path, join: str, limit: int) -> tuple[str, bool]:
    """The file's text, and whether it went on beyond `limit` bytes; `join` as in FileText."""
    if not os.path.exists(file):  # unlike Path.exists, never raises
        raise CalibrationError(f"There is no text file {file}. Give an existing .txt or .jsonl.")
    if not file.is_file():
        raise CalibrationError(f"{file} is no file but a folder or device. Give a .txt or .jsonl.")
    try:
        if file.suffix.lower() == ".jsonl":
            documents, cut = _documents(file, limit)
            text = (join or "\n\n").join(documents)
        else:
            text, cut = _plain(file, limit)
            if join:
                text = join.join(line.strip() for line in text.splitlines() if line.strip())
    except OSError as error:
        raise CalibrationError(f"{file} cannot be read: {error.strerror}.") from None
    text = text.replace("\r\n", "\n")
    if not text.strip():
        within = f" within its first {limit} bytes" if cut else ""
        raise CalibrationError(f"{file} holds no text{within}. Give a file with some in it.")
    if any(word.end() - word.start() > WORD for word in re.finditer(r"\S+", text)):
        raise CalibrationError(
            f"{file} holds a word of over {WORD} characters: that is no text that a tokenizer can "
            f"read. Give a file with white space between its words."
        )
    return text, cut


def _plain(file: Path, limit: int) -> tuple[str, bool]:
    with file.open("rb") as stream:
        content = stream.read(limit + 1)
    cut = len(content) > limit
    content = content[:limit]
    _check_no_binary(content, file)
    try:
        return content.decode("utf-8-sig"), cut
    except UnicodeDecodeError as error:
        # `start` counts from behind a byte order mark, as `object` does.
        if cut and error.reason == "unexpected end of data":
            return error.object[: error.start].decode("utf-8"), cut
        offset = error.start + len(content) - len(error.object)
        raise CalibrationError(
            f"{file} is not UTF-8: byte {offset} is 0x{content[offset]:02x}. Convert it first, "
            f"for example with iconv -f LATIN1 -t UTF-8."
        ) from None


def _check_no_binary(content: bytes, file: Path) -> None:
    zero = content.find(b"\0")
    if zero >= 0:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        kind = "UTF-16, not UTF-8" if wide else "no text but binary"
        raise CalibrationError(f"{file} is {kind}: byte {zero} is zero. Give UTF-8 text.")
    controls = len(content) - len(content.translate(None, _CONTROLS))
    if controls * 100 > len(content):
        raise CalibrationError(
            f"{file} is no text but binary: {controls} of {len(content)} bytes are control "
            f"characters. Give UTF-8 text."
        )


def _documents(file: Path, limit: int) -> tuple[list[str], bool]:
    """One document a line, up to the last line that fits the limit."""
    documents: list[str] = []
    taken, number = 0, 0
    with file.open("rb") as stream:
        while line := stream.readline(limit - taken + 1):
            number += 1
            taken += len(line)
            if taken > limit:
                return documents, True
            line = line.removeprefix(_MARK) if number == 1 else line
            if line.strip():
                documents.append(_document(line, f"{file}, line {number}"))
    return documents, False


def _document(line: bytes, where: str) -> str:
    try:
        found = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CalibrationError(
            f"{where} is not UTF-8 at byte {error.start}. Convert the file to UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CalibrationError(
            f"{where} is no JSON: {error}. Each line is a string or an object with 'text'."
        ) from None
    text = found.get("text") if isinstance(found, dict) else found
    if not isinstance(text, str):
        raise CalibrationError(
            f"{where} has no text: a string or an object with a string 'text' is expected."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise CalibrationError(
            f"{where} holds half a surrogate pair (\\ud800 to \\udfff), which is no character. "
            f"Mend or drop the line."
        ) from None
    return text
