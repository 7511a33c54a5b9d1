"""A model folder in Hugging Face format, as files: what it holds, whether it is whole, a copy of it
with some tensors replaced. Only safetensors is ever opened."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slimsearch import files
from slimsearch.errors import ModelError
from slimsearch.settings import DEMO
from slimsearch.shelf import PACKAGE

RECORD = "slimsearch.json"  # what we say of a folder that we wrote
BESIDE = "beside"  # in it, the files that stood beside the weights
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_config.json"
COPIED = (".json", ".jinja", ".model", ".txt", ".tiktoken")  # everything beside the weights
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")  # can run any code when opened
LONGEST = 64 << 20  # bytes of what stands beside the weights: each such file is read whole
# Keys of config.json that have other weights loaded than those that are checked here.
ELSEWHERE = {
    "transformers_weights": "names another file of weights; rename it to model.safetensors",
    "quantization_config": "describes quantised weights; give the model in its full precision",
}


_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    config: Mapping[str, Any]
    shards: Mapping[str, str]  # key on disk -> file name

    @property
    def model_type(self) -> str:
        return self.config["model_type"]

    @property
    def generation(self) -> Mapping[str, Any]:
        """generation_config.json, where there is one."""
        file = self.folder / "generation_config.json"
        return _json(file, "") if file.is_file() else {}

    @property
    def card(self) -> str:
        """The model card, where there is one."""
        file = self.folder / "README.md"
        return file.read_text("utf-8", errors="replace") if file.is_file() else ""

    @property
    def record(self) -> dict[str, Any]:
        """What slimsearch recorded here; nothing in a folder of another's making."""
        return record_of(self.folder)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of every shard and of every file beside them: tokenizer, processor, template."""
        beside = [file.name for file in self.folder.iterdir() if file.suffix in COPIED]
        names = sorted({*beside, *self.shards.values()})
        return {name: files.sha256(self.folder / name) for name in names}

    def dtype(self, key: str) -> torch.dtype:
        """The dtype of one tensor on disk."""
        with safe_open(self.folder / self.shards[key], "pt") as shard:
            return shard.get_slice(key)[:0].dtype

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of one tensor on disk."""
        with safe_open(self.folder / self.shards[key], "pt") as shard:
            return tuple(shard.get_slice(key).get_shape())

    def read(self, keys: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Tensors by key; each is in memory only as long as the caller holds it."""
        for key in keys:
            with safe_open(self.folder / self.shards[key], "pt") as shard:
                yield key, shard.get_tensor(key)

    def copy(self, folder: Path, changed: Mapping[str, Tensor]) -> None:
        """Writes the model again into an existing folder, some tensors replaced."""
        self.copy_weights(folder, changed)
        self.copy_beside(folder)

    def copy_weights(self, folder: Path, changed: Mapping[str, Tensor]) -> None:
        """Names, dtypes and shards stay as they are; what is not in `changed` keeps its bytes."""
        for name in sorted(set(self.shards.values())):
            with files.writing(folder / name):
                shutil.copyfile(self.folder / name, folder / name)
        if (self.folder / INDEX).is_file():
            shutil.copyfile(self.folder / INDEX, folder / INDEX)
        self.overwrite(folder, changed)

    def copy_beside(self, folder: Path) -> None:
        """What stands beside the weights: configuration, tokenizer, processor, chat template."""
        for file in sorted(self.folder.iterdir()):
            if file.is_file() and file.suffix in COPIED and file.name != INDEX:
                shutil.copyfile(file, folder / file.name)

    def overwrite(self, folder: Path, changed: Mapping[str, Tensor]) -> None:
        """Writes tensors over their own bytes in a copy of this checkpoint."""
        for name in sorted({self.shards[key] for key in changed}):
            with files.writing(folder / name):
                _overwrite(folder / name, changed)


def find(source: str) -> Checkpoint:
    """The checkpoint behind 'demo', a folder or a hub id, checked to be whole."""
    folder = _folder(source)
    _check_files(folder)
    config = _config(folder)
    shards = _shards(folder)
    _check_whole(folder, shards)
    return Checkpoint(folder, config, shards)


def record_of(folder: Path) -> dict[str, Any]:
    """What slimsearch recorded in a folder; nothing for a folder of another's making."""
    file = folder / RECORD
    try:
        found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is damaged ({error}); remove it or restore it.") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds no JSON object; remove it or restore it.")
    return found


def names_beside(folder: Path) -> list[str]:
    """The files beside the weights: configuration, tokenizer, processor, chat template."""
    named = (file.name for file in folder.iterdir() if file.is_file() and file.suffix in COPIED)
    return sorted({*named} - {RECORD, INDEX})


def unreadable(folder: Path) -> str:
    """The first file beside the weights that is not the JSON or text that its name says, and why;
    '' where all can be read."""
    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".json":
                _json(file, "")
            elif file.suffix == ".jinja":
                file.read_text("utf-8")
        except ModelError as error:
            return str(error)
        except (OSError, ValueError) as error:
            return f"{file} is no readable text ({error}); fetch the model again."
    return ""


def beside(folder: Path) -> Checkpoint:
    """A folder that may hold no weights of this format, such as an export for another engine."""
    if any((folder / name).is_file() for name in (INDEX, SINGLE)):
        return find(str(folder))
    _check_files(folder)
    return Checkpoint(folder, _config(folder), {})


def inside(file: Path, folder: Path) -> bool:
    """Whether a file is in a folder once links are followed, or a link into the hub's own cache."""
    return _followed(file).is_relative_to(_followed(folder)) or _in_hub_cache(file)


def _overwrite(shard: Path, changed: Mapping[str, Tensor]) -> None:
    """Writes tensors over their own bytes in a safetensors file; its header stays as it is.

    The file is: the header's length (8 bytes, little-endian), the header (JSON), the data.
    """
    with shard.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        for key in sorted(header.keys() & changed.keys()):
            start, end = header[key]["data_offsets"]
            dtype = _DTYPES[header[key]["dtype"]]
            tensor = changed[key].detach().to("cpu", dtype).contiguous()
            content = tensor.flatten().view(torch.uint8).numpy().tobytes()
            assert len(content) == end - start
            stream.seek(8 + length + start)
            stream.write(content)


def _config(folder: Path) -> dict[str, Any]:
    config = _json(folder / "config.json", "every model folder has one; save_pretrained writes it")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{folder / 'config.json'} names no model_type, so it is no model's.")
    for key, meaning in ELSEWHERE.items():
        if config.get(key):
            raise ModelError(f"{folder / 'config.json'}: '{key}' {meaning}.")
    return config


def _folder(source: str) -> Path:
    if source == DEMO:
        return PACKAGE / "demo" / "model"
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        hint = " Pickled weights are never opened." if path.suffix in PICKLED else ""
        raise ModelError(f"{path} is a file; give the folder that holds config.json.{hint}")
    if source.count("/") == 1 and source[0] not in "./~" and ".." not in source:
        return _from_hub(source)
    raise ModelError(
        f"There is no model folder {path}. Give a folder in Hugging Face format, a hub id such as "
        f"llava-hf/llava-1.5-7b-hf, or 'demo'."
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "README.md", *(f"*{suffix}" for suffix in COPIED)]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises a dozen kinds, some of its HTTP library
        raise ModelError(
            f"{name} is no folder here and could not be fetched from the hub "
            f"({type(error).__name__}). Check the name and the network, or give a local folder."
        ) from error


def _check_files(folder: Path) -> None:
    """Before anything is opened: no link out of the folder, no pipe or device, nothing endless
    beside the weights and nothing lost from there, and no adapter of another model."""
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not inside(file, folder):
            raise ModelError(f"{file} is a link out of its folder. Refused; copy the file in.")
        if file.exists() and not file.is_file() and not file.is_dir():
            raise ModelError(f"{file} is a pipe or device. Refused; put the file itself there.")
        beside = file.suffix in COPIED or file.name == "README.md"
        if beside and file.is_file() and file.stat().st_size > LONGEST:
            raise ModelError(
                f"{file} is larger than {LONGEST >> 20} MiB, and what stands beside the weights is "
                f"read whole. Fetch the model again, or move away what is not part of it."
            )
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"{folder / ADAPTER} makes this an adapter of another model. Merge it into that model "
            f"first, and give the merged folder."
        )
    told = record_of(folder).get(BESIDE)
    for name in told if isinstance(told, list) else ():
        if not (folder / str(name)).is_file():  # transformers would take another for it, unsaid
            raise ModelError(
                f"There is no {folder / str(name)}, which {RECORD} names. Copy it from the "
                f"original model, or export that again."
            )


def _in_hub_cache(file: Path) -> bool:
    """True for <cache>/models--x--y/snapshots/<revision>/name -> ../../blobs/<hash>."""
    snapshots = file.absolute().parent.parent
    blobs = _followed(snapshots.parent / "blobs")
    return snapshots.name == "snapshots" and _followed(file).parent == blobs


def _followed(path: Path) -> Path:
    """Where links lead; unlike Path.resolve, never raises, also where they lead in a circle."""
    return Path(os.path.realpath(path))


def _shards(folder: Path) -> dict[str, str]:
    if (folder / SINGLE).is_file():  # transformers, too, takes it before an index
        return dict.fromkeys(_keys(folder / SINGLE), SINGLE)
    if (folder / INDEX).is_file():
        found = _json(folder / INDEX, "").get("weight_map")
        if not isinstance(found, dict) or not found:
            raise ModelError(f"{folder / INDEX} has no weight_map; fetch the model again.")
        for name in found.values():
            if not isinstance(name, str) or Path(name).name != name:
                raise ModelError(
                    f"{folder / INDEX} names the shard {name!r}, which lies outside the folder. "
                    f"Refused: shards are plain file names."
                )
            if Path(name).suffix != ".safetensors":  # transformers goes by it, and unpickles others
                raise ModelError(
                    f"{folder / INDEX} names the shard {name!r}, which is no .safetensors file. "
                    f"Refused: nothing else is opened."
                )
        return found
    others = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
    hint = f" Pickled weights ({others[0]}) are never opened." if others else ""
    raise ModelError(
        f"{folder} holds neither {SINGLE} nor {INDEX}.{hint} Save the model again with "
        f"save_pretrained(..., safe_serialization=True)."
    )


def _check_whole(folder: Path, shards: Mapping[str, str]) -> None:
    for name in sorted(set(shards.values())):
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{file} is missing though {INDEX} names it; fetch the model again.")
        missing = {key for key, place in shards.items() if place == name} - set(_keys(file))
        if missing:
            raise ModelError(f"{file} lacks the tensor {min(missing)}; fetch the model again.")


def _keys(file: Path) -> Iterable[str]:
    try:
        file.open("rb").close()  # of what may not be read safetensors says that it is missing
        with safe_open(file, "pt") as shard:
            kinds = {key: shard.get_slice(key).get_dtype() for key in shard.keys()}  # noqa: SIM118
    except PermissionError as error:
        raise ModelError(
            f"{file} cannot be read: {error.strerror}. Give yourself the right to it (chmod)."
        ) from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} is damaged or cut short ({error}); fetch the model again."
        ) from None
    for key, kind in kinds.items():
        if kind not in _DTYPES and key.endswith((".weight", ".bias")):
            raise ModelError(
                f"{file} holds {key} as {kind}; slimsearch reads {', '.join(_DTYPES)}. Give the "
                f"model in its full precision."
            )
    return kinds


def _json(file: Path, why: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"There is no {file}; {why}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no readable JSON ({error}); fetch the model again.") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds no JSON object; fetch the model again.")
    return found
