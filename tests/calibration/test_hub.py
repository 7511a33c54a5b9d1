"""The hub door, without a hub: its client is replaced by one that hands out local files."""

import gzip
import json
import sys
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from slimsearch.calibration import hub, texts
from slimsearch.calibration.recipe import HubText
from slimsearch.calibration.texts import gather_texts
from slimsearch.errors import CalibrationError

SOURCE = HubText("who/what", "train.parquet", "valid.parquet", "sentence", " ", "some/branch")


@pytest.fixture
def stored(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the cache of data set who/what at some/branch."""

    def download(dataset: str, file: str, *, repo_type: str, revision: str, **_: object) -> str:
        assert (dataset, repo_type, revision) == ("who/what", "dataset", "some/branch")
        return str(here / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setenv("HF_HOME", str(here / "cache"))
    return here


def write_parquet(file: Path, rows: list, column: str = "sentence") -> Path:
    pyarrow.parquet.write_table(pyarrow.table({column: rows}), file)
    return file


def test_two_files_make_text_and_evaluation_text(stored: Path):
    write_parquet(stored / "train.parquet", ["one", "two"])
    write_parquet(stored / "valid.parquet", ["three", "four"])
    found = gather_texts(SOURCE, 0)
    assert (found.text, found.held) == ("one two", "three four")
    assert found.origin == "who/what, train.parquet"
    assert found.notes == ()


def test_a_long_column_is_cut(stored: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(texts, "LIMIT", 1 << 20)
    write_parquet(stored / "train.parquet", ["word" * 1000] * 300)
    write_parquet(stored / "valid.parquet", ["three"])
    found = gather_texts(SOURCE, 0)
    assert 0.99 < len(found.text) / (1 << 20) <= 1
    assert found.notes == (
        "who/what, train.parquet is longer than 1 MiB; only so much of it is used.",
    )


def test_packed_json_is_read(stored: Path):
    with gzip.open(stored / "shard.json.gz", "wt") as stream:
        stream.write("\n".join(json.dumps({"text": word, "url": ""}) for word in ("one", "two")))
    assert hub.read_column(stored / "shard.json.gz", "text", "\n\n", 100) == ("one\n\ntwo", False)


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        (["one"], "sentense", "row 1 has no text in a column 'sentense'; its columns are sentence"),
        (["one", None], "sentence", "row 2 has no text in a column 'sentence'"),
        ([" ", ""], "sentence", "the column 'sentence' holds no text"),
    ],
)
def test_a_column_without_text_is_refused(stored: Path, rows: list, column: str, message: str):
    file = write_parquet(stored / "a.parquet", rows)
    with pytest.raises(CalibrationError, match=message):
        hub.read_column(file, column, " ", 100)


def test_a_damaged_or_strange_file_is_refused(stored: Path):
    (stored / "a.parquet").write_bytes(b"PAR1 not really")
    (stored / "a.csv").write_text("a,b")
    with pytest.raises(CalibrationError, match=r"a\.parquet cannot be read: .* fetch it again"):
        hub.read_column(stored / "a.parquet", "sentence", " ", 100)
    with pytest.raises(CalibrationError, match=r"a\.csv is of no known kind"):
        hub.read_column(stored / "a.csv", "sentence", " ", 100)


def test_a_hub_out_of_reach_is_said_with_advice(here: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def nothing_stored(*_: object, local_files_only: bool = False, **__: object) -> str:
        assert local_files_only, "nothing may be downloaded before the hub has answered"
        raise LocalEntryNotFoundError("not in the cache")

    def out_of_reach(url: str, timeout: float) -> None:
        assert url.endswith("/who/what/resolve/some%2Fbranch/train.parquet")
        assert timeout <= 10
        raise ConnectionError("Name or service not known.\nFor more information, see elsewhere")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing_stored)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", out_of_reach)
    with pytest.raises(CalibrationError) as refusal:
        gather_texts(SOURCE, 0)
    assert str(refusal.value) == (
        "Could not fetch train.parquet of who/what from the hub: Name or service not known. "
        "Without the hub, give a local file: --calibration path/to/text.txt."
    )


def test_offline_mode_is_respected(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(here / "cache"))
    with pytest.raises(CalibrationError) as refusal:
        hub.fetch("who/what", "train.parquet", "main", "Give a local file.")
    assert "offline" in str(refusal.value)
    assert str(refusal.value).endswith(" Give a local file.")


def test_a_missing_library_is_named(stored: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CalibrationError, match="needs the library `datasets`"):
        hub.read_column(stored / "a.parquet", "sentence", " ", 100)
