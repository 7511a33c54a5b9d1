"""Our own form: a bit for each weight and the values that stayed, mapped into memory as it lies.

native/ holds the decoder packed and everything else of the checkpoint; native/form.py says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimsearch.contracts import Exporter
from slimsearch.errors import SettingsError, did_you_mean
from slimsearch.files import to_json
from slimsearch.graphs import anatomy
from slimsearch.graphs.anatomy import Decoder, Norm
from slimsearch.model.vlm import VLM
from slimsearch.native import form
from slimsearch.native.parts import NORMS, ROLES, Part, Steps, parts_of, plain, tied

NAMED = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Native(Exporter):
    int8: bool = False
    dtype: str = ""  # what it stores and calculates in; as the checkpoint has it unless told
    steps: Mapping[str, Steps] = field(default_factory=dict)  # int8 matrices solved already

    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]:
        dtype = self._dtype(vlm)
        parts = anatomy.taken_apart(vlm)
        form.check(parts)
        names = _names(vlm, parts)
        route = vlm.route.as_json() if vlm.route else {}
        shape = form.described(parts, dtype, names, route)
        own = folder / form.FORM
        own.mkdir()
        decoder = list(parts_of(parts, dtype, lambda matrix: self.steps.get(matrix.name)))
        claimed = {key for key, _ in names.values()}
        seals = {
            form.DECODER: form.write(own / form.DECODER, decoder, to_json(asdict(shape))),
            form.OTHERS: form.write(own / form.OTHERS, list(_others(vlm, claimed))),
        }
        how = f"{dtype}{self._rounding(dtype)}"
        return {
            "about": f"The native engine runs native/, in {how}.",
            "int8": dtype == "int8",
            "dtype": dtype,
            **_report(parts, decoder, dtype),
            "seals": seals,
        }

    def _rounding(self, dtype: str) -> str:
        if dtype != "int8":
            return ""
        return " solved with error feedback" if self.steps else " rounded to the nearest"

    def _dtype(self, vlm: VLM) -> str:
        asked = "int8" if self.int8 else NAMED.get(self.dtype, self.dtype)
        if asked and asked not in form.WIDTHS:
            known = (*NAMED, *form.WIDTHS)
            raise SettingsError(f"--to native has no dtype '{asked}'.{did_you_mean(asked, known)}")
        return asked or form.held_as(str(vlm.disk_dtype)[6:])


def _report(parts: Decoder, decoder: list[Part], dtype: str) -> dict[str, Any]:
    """How large the matrices are, and how large they should be."""
    matrices = {matrix.name: matrix.weight for b in parts.blocks for matrix in b.matrices.values()}
    taken = sum(part.size for part in decoder if part.name.rpartition(".")[0] in matrices)
    weights = sum(weight.numel() for weight in matrices.values())
    kept = sum(int(weight.count_nonzero()) for weight in matrices.values())
    width = form.WIDTHS[dtype]
    share, theory = taken / (weights * width), min(1.0, kept / weights + 1 / (8 * width))
    return {
        "note": f"the decoder's matrices take {taken / 2**20:.1f} MiB, {share:.4f} of dense "
        f"{dtype}; a bit a weight and the {kept / weights:.1%} that stayed make {theory:.4f}.",
        "matrix_bytes": taken,
        "of_dense": share,
        "theory": theory,
    }


def _names(vlm: VLM, parts: Decoder) -> dict[str, tuple[str, str]]:
    """What the checkpoint calls the decoder's parts, and the dtype that each has there."""
    keys = {id(tensor): name for name, tensor in vlm.model.named_parameters()}
    found: dict[str, Tensor | None] = {"norm": _scale(parts.norm), "embedding": parts.embedding}
    for index, block in enumerate(parts.blocks):
        for norm in NORMS:
            found[f"blocks.{index}.{norm}"] = _scale(getattr(block, norm))
        for role in ROLES:
            matrix = block.matrices[role]
            found |= {matrix.name: matrix.weight, f"{matrix.name}.bias": matrix.bias}
    if not tied(parts):
        found |= {"head": parts.head.weight, "head.bias": parts.head.bias}
    on_disk = {
        name: vlm.disk_name(keys[id(tensor)])
        for name, tensor in found.items()
        if tensor is not None
    }
    return {name: (key, str(vlm.checkpoint.dtype(key))[6:]) for name, key in on_disk.items()}


def _scale(norm: Norm | None) -> Tensor | None:
    return None if norm is None else norm.scale


def _others(vlm: VLM, claimed: set[str]) -> Iterator[Part]:
    """What is not the decoder's: as it is on disk, what was trained as it is in memory."""
    moved = {vlm.disk_name(place): vlm.model.get_parameter(place) for place in vlm.tunable.values()}
    for key in sorted(vlm.checkpoint.shards.keys() - claimed):
        ((_, stored),) = vlm.checkpoint.read([key])
        held = moved.get(key, stored)
        if torch.equal(stored.to(held.dtype), held.cpu()):
            held = stored
        yield plain(key, held.to(stored.dtype), str(stored.dtype)[6:])
