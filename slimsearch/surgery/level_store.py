"""Every matrix at every level, solved once: a candidate is stitched together from here.

A matrix at a level is kept as one bit a weight and the values that stayed: at half sparsity 9/16
of dense bf16. Stitching expands only those matrices whose level changes.

The store lies on the GPU, in memory or on disk. On disk it is mapped, so that memory holds no more
of it than is being read, and the dense weights are read from the model's own files when they are
wanted again; elsewhere a copy of them is kept beside the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from slimsearch import files
from slimsearch.contracts import Pruned, Solver
from slimsearch.errors import RunError, SolverError
from slimsearch.model.batch import Batch
from slimsearch.model.vlm import VLM
from slimsearch.surgery.masks import rounded
from slimsearch.surgery.walk import Stop, walk

DENSE = 0.0


@dataclass(frozen=True)
class Packed:
    """A pruned matrix: `bits` say which weights stayed, `values` what they are."""

    bits: Tensor  # uint8 [ceil(size / 8)], least significant bit first
    values: Tensor  # [kept]
    shape: tuple[int, int]
    error: float

    @property
    def bytes(self) -> int:
        return self.bits.numel() + self.values.numel() * self.values.element_size()

    def to(self, device: torch.device | str) -> Packed:
        return replace(self, bits=self.bits.to(device), values=self.values.to(device))

    def expand(self) -> Tensor:
        """The matrix again, [rows, columns], zeros exact."""
        fresh = torch.empty(self.shape, dtype=self.values.dtype, device=self.values.device)
        return self.expand_onto(fresh)

    def expand_onto(self, weights: Tensor) -> Tensor:
        """The same written over `weights`, in their dtype; to a GPU it travels packed."""
        here = self.to(weights.device)
        kept = ((here.bits.unsqueeze(1) & _powers(weights.device)) != 0).flatten()
        kept = kept[: weights.numel()].view(self.shape)
        return weights.zero_().masked_scatter_(kept, here.values.to(weights.dtype))


def pack(pruned: Pruned, *dtypes: torch.dtype) -> Packed:
    """Packs a solved matrix, its values rounded to each dtype in turn."""
    weights = rounded(pruned.weights, *dtypes)
    kept = (weights != 0).flatten()
    padded = torch.nn.functional.pad(kept, (0, -len(kept) % 8)).view(-1, 8).to(torch.uint8)
    bits = (padded * _powers(weights.device)).sum(1, dtype=torch.uint8)
    rows, columns = weights.shape
    return Packed(bits, weights.masked_select(weights != 0), (rows, columns), pruned.error)


class LevelStore:
    """matrix x level -> Packed, and the dense weights to go back to.

    Made of a dense model; `where` is 'gpu', 'memory' or 'disk'.
    """

    def __init__(self, vlm: VLM, where: str = "memory"):
        self.where = where
        self._entries: dict[tuple[str, float], Packed] = {}
        self._unsolved: dict[str, str] = {}  # matrices that no damping could solve, and why
        self.raised: dict[str, float] = {}  # matrix -> damping it took, where more than asked for
        self.attach(vlm)

    def attach(self, vlm: VLM) -> None:
        """Belongs to this model from here on, on which nothing is pruned."""
        self._vlm = vlm
        self._device = vlm.device if self.where == "gpu" else torch.device("cpu")
        self._entries = {key: packed.to(self._device) for key, packed in self._entries.items()}
        self._sizes = {matrix.name: matrix.size for matrix in vlm.matrices}
        self._dense: dict[str, Tensor] = {}
        if self.where != "disk":
            for name in self._sizes:
                self._dense[name] = vlm.linear(name).weight.detach().to(self._device, copy=True)
        self._on: dict[str, object] = dict.fromkeys(self._sizes, DENSE)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process, to be attached to a model there."""
        return {**vars(self), "_vlm": None, "_dense": {}, "_on": {}, "raised": {}}

    def add(self, matrix: str, level: float, pruned: Packed) -> None:
        self._entries[matrix, _key(level)] = pruned.to(self._device)

    def refuse(self, matrix: str, reason: str) -> None:
        """Notes that a matrix has no solution: whatever candidate asks for it fails."""
        self._unsolved[matrix] = reason

    def error(self, matrix: str, level: float) -> float:
        """Half tr(dW H dW^T) of a matrix at a level."""
        return 0.0 if _key(level) == DENSE else self._entry(matrix, level).error

    def weights(self, matrix: str, level: float) -> Tensor:
        """A matrix at a level, on the model's device."""
        if _key(level) == DENSE:
            return self.dense(matrix)
        return self._entry(matrix, level).to(self._vlm.device).expand()

    def stitch(self, vlm: VLM, levels: Mapping[str, float]) -> int:
        """Puts every matrix at its level (dense where none is named); returns how many changed."""
        changed = 0
        for matrix, on in self._on.items():
            level = _key(levels.get(matrix, DENSE))
            if on == level:
                continue
            if level == DENSE:
                vlm.linear(matrix).weight.data.copy_(self.dense(matrix))
            else:
                self._entry(matrix, level).expand_onto(vlm.linear(matrix).weight.data)
            self._on[matrix] = level
            changed += 1
        return changed

    def restore(self, vlm: VLM) -> None:
        """Puts the dense weights back."""
        self.stitch(vlm, {})

    def place(self, vlm: VLM, packed: Mapping[str, Packed]) -> None:
        """Puts given matrices on the model, whatever their level; `restore` takes them off."""
        for matrix, entry in packed.items():
            entry.expand_onto(vlm.linear(matrix).weight.data)
            self._on[matrix] = entry

    def take_raised(self) -> dict[str, float]:
        """The dampings that were raised since this was last asked, by matrix."""
        taken, self.raised = self.raised, {}
        return taken

    def sparsities(self, vlm: VLM) -> dict[str, float]:
        """The share of zeros in each prunable matrix, counted on the model."""
        return {
            matrix: int((vlm.linear(matrix).weight == 0).sum()) / size
            for matrix, size in self._sizes.items()
        }

    def sparsity(self, vlm: VLM) -> float:
        """The share of zeros among all prunable weights, counted on the model."""
        shares = self.sparsities(vlm)
        removed = sum(share * self._sizes[matrix] for matrix, share in shares.items())
        return removed / sum(self._sizes.values())

    def dense(self, matrix: str) -> Tensor:
        """A matrix as it came, on the model's device."""
        kept = self._dense.get(matrix)
        return self._vlm.from_disk(matrix) if kept is None else kept.to(self._vlm.device)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def save(self, block: int, folder: Path) -> None:
        """Writes a block's matrices into a file of their own; from there on it is what is read."""
        tensors, errors = {}, {}
        for (matrix, level), packed in self._entries.items():
            if _block(matrix) == block:
                name = f"{matrix}@{level:g}"
                tensors[f"{name}.bits"] = packed.bits
                tensors[f"{name}.values"] = packed.values
                errors[name] = [matrix, level, packed.error, *packed.shape]
        unsolved = {m: why for m, why in self._unsolved.items() if _block(m) == block}
        file = folder / f"{block:04d}.safetensors"
        with files.writing(file):
            save_file(tensors, file, {"entries": json.dumps([errors, unsolved])})
        if self.where == "disk":
            self._read(file)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""
        for file in sorted(folder.glob("*.safetensors")):
            self._read(file)

    def _read(self, file: Path) -> None:
        """Takes over a block's file, its tensors mapped and, elsewhere than on disk, copied."""
        with safe_open(file, "pt") as shard:
            entries, unsolved = json.loads(shard.metadata()["entries"])
            self._unsolved |= unsolved
            for name, (matrix, level, error, rows, columns) in entries.items():
                bits, values = (shard.get_tensor(f"{name}.{part}") for part in ("bits", "values"))
                if self.where == "memory":
                    bits, values = bits.clone(), values.clone()
                self.add(matrix, level, Packed(bits, values, (rows, columns), error))

    def _entry(self, matrix: str, level: float) -> Packed:
        if matrix in self._unsolved:
            raise SolverError(f"{matrix}: {self._unsolved[matrix]}")
        try:
            return self._entries[matrix, _key(level)]
        except KeyError:
            raise RunError(f"The level store holds no {matrix} at level {level:g}.") from None


def fill(
    store: LevelStore,
    vlm: VLM,
    batches: Sequence[Batch],
    levels: Mapping[str, Iterable[float]],
    solver: Solver,
    tokens: str,
    advance: Callable[[], None],
    folder: Path | None = None,
    blocks: int | None = None,
) -> None:
    """Solves every matrix at all its levels from the dense model's activations.

    With a `folder`, each block is written there as soon as it is solved. `blocks` stops after so
    many of them: a probe.
    """
    store.restore(vlm)
    stages = len(vlm.stages)
    every = walk(vlm, batches, tokens, pruned_inputs=False, by_set=solver.by_set)
    stops = islice(every, None if blocks is None else blocks * stages)
    for count, stop in enumerate(stops, 1):
        wanted = [
            sorted({_key(level) for level in levels.get(matrix, ())} - {DENSE})
            for matrix in stop.matrices
        ]
        solved = _solved(store, solver, stop, wanted)
        for matrix, some, each in zip(stop.matrices, wanted, solved, strict=True):
            for level, pruned in zip(some, each, strict=bool(each)):
                store.add(matrix, level, pack(pruned, *vlm.dtypes))
            if stop.hessian.raised:
                store.raised[matrix] = stop.hessian.raised
            advance()
        if folder is not None and count % stages == 0:
            store.save(_block(stop.matrices[0]), folder)


def expected_bytes(vlm: VLM, levels: Mapping[str, Iterable[float]]) -> int:
    """What a store will take: a bit for each weight, and the values that stay."""
    width = vlm.disk_dtype.itemsize
    return sum(
        matrix.size // 8 + round(matrix.size * (1 - level)) * width
        for matrix in vlm.matrices
        for level in levels[matrix.name]
    )


def _solved(
    store: LevelStore, solver: Solver, stop: Stop, wanted: Sequence[Sequence[float]]
) -> list[list[Pruned]]:
    """A stop's matrices at their levels; one that cannot be solved is refused and left empty."""
    dense = [store.dense(matrix) for matrix in stop.matrices]
    try:
        return solver.prune_together(dense, stop.hessian, wanted)
    except SolverError:
        found: list[list[Pruned]] = []
    for matrix, weights, some in zip(stop.matrices, dense, wanted, strict=True):
        try:
            found.append(solver.prune(weights, stop.hessian, some) if some else [])
        except SolverError as error:
            store.refuse(matrix, str(error))
            found.append([])
    return found


def _powers(device: torch.device) -> Tensor:
    return 2 ** torch.arange(8, dtype=torch.uint8, device=device)


def _block(matrix: str) -> int:
    return int(matrix.split(".")[1])


def _key(level: float) -> float:
    return round(level, 6)
