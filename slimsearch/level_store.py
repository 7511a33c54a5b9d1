"""Every matrix at every level, solved once: a candidate is stitched together from here.

A matrix at a level is kept as one bit a weight and the values that stayed: at half sparsity 9/16
of dense bf16. Stitching expands only those matrices whose level changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from slimsearch import files
from slimsearch.contracts import Pruned, Solver
from slimsearch.errors import RunError, SolverError
from slimsearch.masks import rounded
from slimsearch.vlm import VLM, Batch
from slimsearch.walk import Stop, walk

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

    def expand(self) -> Tensor:
        """The matrix again, [rows, columns], zeros exact."""
        shifts = torch.arange(8, dtype=torch.uint8, device=self.bits.device)
        kept = ((self.bits.unsqueeze(1) >> shifts) & 1).bool().flatten()
        kept = kept[: self.shape[0] * self.shape[1]].view(self.shape)
        weights = torch.zeros(self.shape, dtype=self.values.dtype, device=self.values.device)
        return weights.masked_scatter_(kept, self.values)


def pack(pruned: Pruned, *dtypes: torch.dtype) -> Packed:
    """Packs a solved matrix, its values rounded to each dtype in turn."""
    weights = rounded(pruned.weights, *dtypes)
    kept = (weights != 0).flatten()
    padded = torch.nn.functional.pad(kept, (0, -len(kept) % 8)).view(-1, 8).to(torch.uint8)
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=weights.device)
    bits = (padded * powers).sum(1, dtype=torch.uint8)
    rows, columns = weights.shape
    return Packed(bits, weights.masked_select(weights != 0), (rows, columns), pruned.error)


class LevelStore:
    """matrix x level -> Packed, and the dense weights to go back to."""

    def __init__(self, vlm: VLM):
        self._entries: dict[tuple[str, float], Packed] = {}
        self._unsolved: dict[str, str] = {}  # matrices that no damping could solve, and why
        self._dense = {m.name: vlm.linear(m.name).weight.detach().clone() for m in vlm.matrices}
        self.raised: dict[str, float] = {}  # matrix -> damping it took, where more than asked for
        self._on: dict[str, object] = dict.fromkeys(self._dense, DENSE)

    def add(self, matrix: str, level: float, pruned: Packed) -> None:
        self._entries[matrix, _key(level)] = pruned

    def refuse(self, matrix: str, reason: str) -> None:
        """Notes that a matrix has no solution: whatever candidate asks for it fails."""
        self._unsolved[matrix] = reason

    def error(self, matrix: str, level: float) -> float:
        """Half tr(dW H dW^T) of a matrix at a level."""
        return 0.0 if _key(level) == DENSE else self._entry(matrix, level).error

    def stitch(self, vlm: VLM, levels: Mapping[str, float]) -> int:
        """Puts every matrix at its level (dense where none is named); returns how many changed."""
        changed = 0
        for matrix, dense in self._dense.items():
            level = _key(levels.get(matrix, DENSE))
            if self._on[matrix] == level:
                continue
            weight = vlm.linear(matrix).weight.data
            weight.copy_(dense if level == DENSE else self._entry(matrix, level).expand())
            self._on[matrix] = level
            changed += 1
        return changed

    def restore(self, vlm: VLM) -> None:
        """Puts the dense weights back."""
        self.stitch(vlm, {})

    def place(self, vlm: VLM, packed: Mapping[str, Packed]) -> None:
        """Puts given matrices on the model, whatever their level; `restore` takes them off."""
        for matrix, entry in packed.items():
            vlm.linear(matrix).weight.data.copy_(entry.expand())
            self._on[matrix] = entry

    def take_raised(self) -> dict[str, float]:
        """The dampings that were raised since this was last asked, by matrix."""
        taken, self.raised = self.raised, {}
        return taken

    def sparsities(self, vlm: VLM) -> dict[str, float]:
        """The share of zeros in each prunable matrix, counted on the model."""
        return {
            matrix: int((vlm.linear(matrix).weight == 0).sum()) / dense.numel()
            for matrix, dense in self._dense.items()
        }

    def sparsity(self, vlm: VLM) -> float:
        """The share of zeros among all prunable weights, counted on the model."""
        shares = self.sparsities(vlm)
        removed = sum(share * self._dense[matrix].numel() for matrix, share in shares.items())
        return removed / sum(dense.numel() for dense in self._dense.values())

    def dense(self, matrix: str) -> Tensor:
        return self._dense[matrix]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def save(self, folder: Path) -> None:
        """Writes one safetensors file for each block."""
        matrices = {matrix for matrix, _ in self._entries} | self._unsolved.keys()
        blocks = sorted({matrix.split(".")[1] for matrix in matrices}, key=int)
        with files.new_folder(folder) as temporary:
            for block in blocks:
                tensors, errors = {}, {}
                unsolved = {m: why for m, why in self._unsolved.items() if m.split(".")[1] == block}
                for (matrix, level), packed in self._entries.items():
                    if matrix.split(".")[1] == block:
                        name = f"{matrix}@{level:g}"
                        tensors[f"{name}.bits"] = packed.bits
                        tensors[f"{name}.values"] = packed.values
                        errors[name] = [matrix, level, packed.error, *packed.shape]
                file = temporary / f"{int(block):04d}.safetensors"
                with files.writing(file):
                    save_file(tensors, file, {"entries": json.dumps([errors, unsolved])})

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote; tensors stay memory-mapped until they are used."""
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as shard:
                entries, unsolved = json.loads(shard.metadata()["entries"])
                self._unsolved |= unsolved
                for name, (matrix, level, error, rows, columns) in entries.items():
                    self.add(matrix, level, Packed(
                        shard.get_tensor(f"{name}.bits").to(self._dense[matrix].device),
                        shard.get_tensor(f"{name}.values").to(self._dense[matrix].device),
                        (rows, columns), error,
                    ))  # fmt: skip

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
    blocks: int | None = None,
) -> None:
    """Solves every matrix at all its levels from the dense model's activations.

    `blocks` stops after so many of them: a probe.
    """
    store.restore(vlm)
    stops = None if blocks is None else blocks * len(vlm.architecture.stages)
    every = walk(vlm, batches, tokens, pruned_inputs=False, by_set=solver.by_set)
    for stop in islice(every, stops):
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


def _key(level: float) -> float:
    return round(level, 6)
