"""A journal loses at most the line that was being written, and never believes a damaged one."""

import errno
import os
from zlib import crc32

import pytest

from slimsearch.errors import ResourceError, RunError
from slimsearch.record.journal import Journal, read

RECORDS = [{"kind": "start", "n": 0}, {"kind": "score", "total": 1.5, "name": "ä"}, {"n": [1, 2]}]


@pytest.fixture
def file(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return tmp_path / "journal.jsonl"


def ends(content: bytes) -> list[int]:
    return [n + 1 for n, byte in enumerate(content) if byte == 10]


def test_records_come_back(file):
    assert read(file) == (RECORDS, [0, *ends(file.read_bytes())])


def test_cut_at_every_byte_the_whole_lines_come_back(file):
    content = file.read_bytes()
    for length in range(len(content) + 1):
        file.write_bytes(content[:length])
        whole = [end for end in ends(content) if end <= length]
        assert read(file) == (RECORDS[: len(whole)], [0, *whole]), length


def test_a_torn_line_is_cut_off_before_the_next_is_written(file):
    content = file.read_bytes()
    for length in range(ends(content)[1] + 1, len(content)):
        file.write_bytes(content[:length])
        journal = Journal(file)
        assert [record for record, _ in journal.replay()] == RECORDS[:2]
        assert file.read_bytes() == content[:length], "opening changed it"
        assert journal.torn == length - ends(content)[1]
        journal.append(RECORDS[2])
        journal.close()
        assert file.read_bytes() == content


def test_any_flipped_bit_before_the_last_line_is_refused_with_its_offset(file):
    """Also one that joins two lines or parts one."""
    content = file.read_bytes()
    starts = [0, *ends(content)]
    for place in range(ends(content)[1]):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            line = max(start for start in starts if start <= place)
            with pytest.raises(RunError, match=f"is damaged at byte {line} "):
                pytest.fail(f"byte {place}, bit {bit}: {read(file)}")


def test_a_flipped_bit_in_the_last_line_drops_it_or_is_refused(file):
    content = file.read_bytes()
    last = ends(content)[1]
    for place in range(last, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert read(file) == (RECORDS[:2], [0, *ends(content)[:2]])


def test_opening_a_damaged_journal_changes_nothing(file):
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError):
        Journal(file)
    assert file.read_bytes() == content
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert str(file) not in held


def test_a_full_disk_leaves_whole_lines(file, monkeypatch):
    content = file.read_bytes()
    journal = Journal(file)
    written = os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda handle, line, at: written(handle, line[:7], at))
        with pytest.raises(ResourceError, match="No space left"):
            journal.append({"n": 3})
    assert file.read_bytes() == content
    assert read(file)[0] == RECORDS
    with monkeypatch.context() as patched:

        def fail(_):
            raise OSError(errno.EIO, "Input/output error")

        patched.setattr(os, "fsync", fail)
        with pytest.raises(ResourceError):
            journal.append({"n": 3})
    assert file.read_bytes() == content
    journal.append({"n": 3})
    journal.close()
    assert read(file)[0] == [*RECORDS, {"n": 3}]


def test_every_record_is_synced(file, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), sync(handle)))
    journal = Journal(file)
    journal.append({"n": 3})
    assert synced
    journal.close()


def test_what_is_no_json_number_is_null(file):
    journal = Journal(file)
    journal.append({"n": float("nan"), "inner": [{"m": float("-inf")}, 1.5]})
    journal.close()
    assert read(file)[0] == [*RECORDS, {"n": None, "inner": [{"m": None}, 1.5]}]


def test_a_missing_journal(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        read(tmp_path / "none")


def line(text: bytes) -> bytes:
    return b"%08x %s\n" % (crc32(text), text)


@pytest.mark.parametrize("text", [b"no json", b"[1]", b"[" * 100_000, b'"a"', b""])
def test_a_line_whose_sum_is_right_and_whose_content_is_no_record(file, text):
    whole = file.read_bytes()
    file.write_bytes(line(text) + whole)
    with pytest.raises(RunError, match="damaged at byte 0 "):
        read(file)


def test_a_link_in_the_journals_place_is_not_followed(tmp_path):
    """A line cut off would be cut off there."""
    (tmp_path / "mine").write_text("one line of mine")
    (tmp_path / "journal.jsonl").symlink_to(tmp_path / "mine")
    with pytest.raises(ResourceError, match=r"journal\.jsonl"):
        Journal(tmp_path / "journal.jsonl")
    assert (tmp_path / "mine").read_text() == "one line of mine"
