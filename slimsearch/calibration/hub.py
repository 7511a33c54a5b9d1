"""The door to data sets on the Hugging Face hub: one file is fetched, one column of it read.

The cache is asked first; then one short question to the hub tells within seconds whether a
download has a chance.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slimsearch.errors import CalibrationError

AGAIN = "Delete it and fetch it again."
PATIENCE = 10  # seconds to wait for the hub's first answer
_BUILDERS = {
    ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".json.gz": "json",
    ".jsonl.gz": "json",
}  # fmt: skip


def fetch(dataset: str, file: str, revision: str, advice: str) -> Path:
    """One file of a data set, from the local cache or else the hub; `advice` ends an error."""
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    download = partial(hub.hf_hub_download, dataset, file, repo_type="dataset", revision=revision)
    try:
        try:
            return Path(download(local_files_only=True))
        except LocalEntryNotFoundError:
            url = hub.hf_hub_url(dataset, file, repo_type="dataset", revision=revision)
            hub.get_hf_file_metadata(url, timeout=PATIENCE)
            return Path(download(etag_timeout=PATIENCE))
    except Exception as error:  # the hub's client lets errors of several libraries through
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CalibrationError(
            f"Could not fetch {file} of {dataset} from the hub: {reason}. {advice}"
        ) from error


def read_column(file: Path, column: str, join: str, limit: int) -> tuple[str, bool]:
    """The column's rows joined, and whether they went on beyond `limit` bytes."""
    rows = _rows(file)
    pieces: list[str] = []
    taken, cut = 0, False
    try:
        for number, row in enumerate(rows, 1):
            piece = _piece(row, column, f"{file}, row {number}")
            taken += len(piece.encode()) + len(join)
            if taken > limit:
                cut = True
                break
            pieces.append(piece)
    except CalibrationError:
        raise
    except Exception as error:  # a damaged file fails in whichever library decodes it
        raise CalibrationError(
            f"{file} cannot be read: {type(error).__name__}: {error}. Delete it and fetch it again."
        ) from error
    text = join.join(pieces)
    if not text.strip():
        raise CalibrationError(f"{file}: the column '{column}' holds no text. Name another file.")
    return text, cut


def load_rows(dataset: str, config: str, split: str) -> Iterator[dict[str, Any]]:
    """A data set of the hub, row by row, pictures opened."""
    advice = "Check the network, or give a folder of its official files with --data."
    yield from _loaded(dataset, advice, dataset, config, split=split, streaming=True)


def read_rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The same from parquet files."""
    names = [str(file) for file in files]
    yield from _loaded(names[0], AGAIN, "parquet", data_files=names, split="train", streaming=True)


def _rows(file: Path) -> Any:
    builder = next((kind for end, kind in _BUILDERS.items() if file.name.endswith(end)), None)
    if builder is None:
        raise CalibrationError(
            f"{file} is of no known kind. A recipe's hub files end in {', '.join(_BUILDERS)}."
        )
    return _loaded(str(file), AGAIN, builder, data_files=[str(file)], split="train", streaming=True)


def _loaded(place: str, advice: str, *what: str, **how: Any) -> Any:
    try:
        import datasets
    except ImportError:
        raise CalibrationError(
            "Reading from the hub needs the library `datasets`. Install it (pip install datasets) "
            "or give a local file."
        ) from None
    try:
        return datasets.load_dataset(*what, **how)
    except Exception as error:
        raise CalibrationError(
            f"{place} cannot be read: {type(error).__name__}: {error}. {advice}"
        ) from error


def _piece(row: dict[str, Any], column: str, where: str) -> str:
    piece = row.get(column)
    if not isinstance(piece, str):
        raise CalibrationError(
            f"{where} has no text in a column '{column}'; its columns are "
            f"{', '.join(sorted(row))}. Correct `column` in the recipe."
        )
    return piece
