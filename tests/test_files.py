"""Whole files or none."""

import hashlib
import os

import pytest

from slimsearch import files
from slimsearch.errors import ResourceError


def test_a_file_is_replaced(tmp_path):
    file = tmp_path / "a"
    files.write(file, b"one")
    files.write(file, b"two")
    assert file.read_bytes() == b"two"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "a"
    files.write(file, b"one")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="a could not be written: No space left"):
        files.write(file, b"two")
    assert file.read_bytes() == b"one"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ResourceError, match="could not be written"):
        files.write(tmp_path / "none" / "a", b"one")


def test_a_new_folder_appears_whole(tmp_path):
    with files.new_folder(tmp_path / "deep" / "new") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_text("one")
        assert not (tmp_path / "deep" / "new").exists()
    assert (tmp_path / "deep" / "new" / "inner" / "a").read_text() == "one"
    assert [one.name for one in (tmp_path / "deep").iterdir()] == ["new"]
    assert (tmp_path / "deep" / "new").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_new_folder_vanishes_with_an_error(tmp_path, error):
    def half() -> None:
        with files.new_folder(tmp_path / "new") as temporary:
            (temporary / "a").write_text("one")
            raise error

    with pytest.raises(error):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("mine")
    with pytest.raises(ResourceError), files.new_folder(tmp_path / "new") as temporary:
        (temporary / "a").write_text("one")
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["mine"]
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"some bytes")
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"some bytes").hexdigest()
