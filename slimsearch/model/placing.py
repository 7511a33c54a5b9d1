"""A model whose decoder blocks do not all fit beside the computation (--device-map auto).

A block lies where there is room: on the GPU that computes, on another GPU, in memory, on disk. It
is computed on the first of these wherever it lies: its weights come along for as long as it takes,
in a backward pass too. On disk means a file that is mapped: what is written to its weights is kept,
and the memory that they took is given back when the next block has its turn.

Everything else (embeddings, vision tower, projector, head) is where the computation is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from mmap import MADV_DONTNEED, mmap
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from slimsearch import files, footprint
from slimsearch.errors import SettingsError
from slimsearch.model import loading, skeleton
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.vlm import VLM
from slimsearch.settings import Settings

DISK = "disk"
SHARE = 0.6  # of what is free that weights may take; the rest is for what is computed with them
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
ALIGNED = 64  # bytes, as torch aligns tensors of its own

Weights = Mapping[str, Tensor]  # of one block, by their names within it


def load(
    checkpoint: Checkpoint, chosen: Settings, note: Callable[[str], None] = lambda text: None
) -> VLM:
    """The model as the settings want it: whole on a device, or its blocks where there is room."""
    check(chosen)
    if not chosen.device_map:
        return loading.load(checkpoint, chosen.device, chosen.dtype, chosen.attention)
    found = skeleton.load(checkpoint, chosen.device, chosen.dtype, chosen.attention)
    homes = _homes(found, _room(found, _sizes(chosen.max_memory)))
    counted = ", ".join(f"{homes.count(home)} on {home}" for home in dict.fromkeys(homes))
    note(f"Decoder blocks by where they lie: {counted.replace('on cpu', 'in memory')}.")
    blocks = PlacedBlocks(found)
    for index, home in enumerate(homes):
        blocks.settle(index, home)
    return skeleton.with_blocks(found, blocks)


def check(chosen: Settings) -> None:
    """Refuses what cannot be placed, before anything is read."""
    if chosen.device_map not in ("", "auto"):
        raise SettingsError(
            f"device_map = '{chosen.device_map}' cannot be: auto lets every decoder block lie "
            f"where there is room, and --max-memory bounds that; '' holds the model on --device."
        )
    if _sizes(chosen.max_memory) and not chosen.device_map:
        raise SettingsError("max_memory bounds what --device-map auto places; give both.")
    if chosen.device_map and chosen.stream:
        raise SettingsError(
            "--stream holds one decoder block at a time and places nothing. Leave out --stream or "
            "--device-map."
        )
    if chosen.device_map and chosen.executor != "local":
        raise SettingsError(
            f"Each worker of --executor {chosen.executor} holds a whole model. Leave out "
            f"--device-map, or use --executor local."
        )


class PlacedBlocks:
    """The model's blocks, each at home somewhere; of those on disk one is in memory at a time."""

    def __init__(self, vlm: VLM, bring: Callable[[Tensor], Tensor] | None = None):
        """`bring` gives a weight of a block from home as it is computed with."""
        self._vlm, self._layers = vlm, vlm.decoder.layers
        self._bring = bring or (lambda weight: weight.to(vlm.device))
        self._mapped: dict[int, mmap] = {}
        self._touched = 0

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> nn.Module:
        self.touch(index)
        return self._layers[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[index] for index in range(len(self)))

    def settle(self, index: int, home: str) -> None:
        """Makes room for a block at its home, and reads it from the checkpoint."""
        block: nn.Module = self[index]
        before = dict(block.named_parameters())
        if home == DISK:
            self._mapped[index], fresh = _on_disk(before)
        else:
            fresh = {name: torch.empty_like(w, device=home) for name, w in before.items()}
        weights = {name: nn.Parameter(w, requires_grad=False) for name, w in fresh.items()}
        _put(block, weights)
        skeleton.read(self._vlm, index, weights)
        if home == DISK or torch.device(home) != self._vlm.device:
            visit = _Visit(block, self._bring, lambda: self.touch(index))
            block.register_forward_pre_hook(visit.begin)
            block.register_forward_hook(visit.end, always_call=True)

    def touch(self, index: int) -> None:
        """Gives back the memory of the block before, where that is on disk."""
        if index != self._touched and (mapped := self._mapped.get(self._touched)) is not None:
            mapped.madvise(MADV_DONTNEED)
        self._touched = index


class _Visit:
    """Brings a block's weights to the computation while its forward pass runs.

    What autograd would keep of them for the backward pass is brought again then.
    """

    def __init__(
        self, block: nn.Module, bring: Callable[[Tensor], Tensor], touch: Callable[[], None]
    ):
        self._block, self._bring, self._touch = block, bring, touch
        self._at_home: Weights = {}
        self._lent: dict[tuple[int, torch.dtype], Tensor] = {}
        self._saving = saved_tensors_hooks(self._pack, self._unpack)

    def begin(self, *_: Any) -> None:
        self._touch()
        found = dict(self._block.named_parameters())  # those in training stand in for some
        here = {name: self._bring(weight) for name, weight in found.items()}
        self._lent = {
            _key(here[name]): weight for name, weight in found.items() if not weight.requires_grad
        }
        _put(self._block, here)
        self._at_home = found
        self._saving.__enter__()

    def end(self, *_: Any) -> None:
        if self._at_home:  # else it did not come so far
            self._saving.__exit__()
            _put(self._block, self._at_home)
            self._at_home, self._lent = {}, {}

    def _pack(self, saved: Tensor) -> Any:
        home = self._lent.get(_key(saved))
        if home is None:
            return saved
        return home, saved.size(), saved.stride(), saved.storage_offset()

    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        home, size, stride, offset = packed
        self._touch()
        return self._bring(home).as_strided(size, stride, offset)


def _sizes(bounds: str) -> dict[str, int]:
    """'cuda:0=20GiB, cpu=4GiB' as bytes by place."""
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in bounds.split(","))):
        place, _, size = (word.strip() for word in part.partition("="))
        unit = next((unit for unit in UNITS if size.endswith(unit)), None)
        place = f"cuda:{place}" if place.isdecimal() else place
        try:
            if unit is None or not (place == "cpu" or place.startswith("cuda:")):
                raise ValueError
            found[place] = int(float(size.removesuffix(unit)) * UNITS[unit])
        except (ValueError, OverflowError):
            raise SettingsError(
                f"max_memory = '{bounds}' cannot be read: give places and sizes such as "
                f"'cuda:0=20GiB, cpu=4GiB'."
            ) from None
    return found


def _room(vlm: VLM, bounds: Mapping[str, int]) -> dict[str, int]:
    """Bytes of decoder blocks that each place may hold, nearest to the computation first."""
    places = ["cpu"]
    if vlm.device.type == "cuda":
        own = torch.cuda.current_device() if vlm.device.index is None else vlm.device.index
        others = (n for n in range(torch.cuda.device_count()) if n != own)
        places = [f"cuda:{n}" for n in (own, *others)] + places
    if unknown := sorted(bounds.keys() - set(places)):
        raise SettingsError(
            f"max_memory names {unknown[0]}, and there is {', '.join(places)} to place blocks in."
        )
    blocks = {id(w) for block in vlm.decoder.layers for w in block.parameters()}
    beside = sum(w.nbytes for w in vlm.model.parameters() if id(w) not in blocks)
    found = {
        place: bounds.get(place, int(SHARE * footprint.free_bytes(torch.device(place))))
        for place in places
    }
    if places[0] in bounds:
        found[places[0]] -= beside
    return found


def _homes(vlm: VLM, room: Mapping[str, int]) -> list[str]:
    """Where each block lies: the first place that still has room for it."""
    left, found = dict(room), []
    for block in vlm.decoder.layers:
        needed = sum(weight.nbytes for weight in block.parameters())
        home = next((place for place, free in left.items() if free >= needed), DISK)
        if home != DISK:
            left[home] -= needed
        found.append(home)
    return found


def _on_disk(wanted: Weights) -> tuple[mmap, dict[str, Tensor]]:
    """Room for weights in a mapped file without a name: nothing is left of it behind us."""
    places: dict[str, int] = {}
    end = 0
    for name, weight in wanted.items():
        places[name] = end
        end += -(-weight.nbytes // ALIGNED) * ALIGNED
    folder = Path(os.environ.get("TMPDIR") or "/var/tmp")  # /tmp is memory on many a system
    with files.writing(folder), TemporaryFile(dir=folder) as stream:
        os.posix_fallocate(stream.fileno(), 0, end)
        mapped = mmap(stream.fileno(), end)
    whole = torch.frombuffer(mapped, dtype=torch.uint8)
    return mapped, {
        name: whole[start : start + wanted[name].nbytes]
        .view(wanted[name].dtype)
        .view(wanted[name].shape)
        for name, start in places.items()
    }


def _put(block: nn.Module, weights: Weights) -> None:
    for name, weight in weights.items():
        path, _, leaf = name.rpartition(".")
        block.get_submodule(path)._parameters[leaf] = weight  # pyright: ignore[reportArgumentType]


def _key(tensor: Tensor) -> tuple[int, torch.dtype]:
    return tensor.untyped_storage().data_ptr(), tensor.dtype
