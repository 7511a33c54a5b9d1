"""A model folder without what no token goes through: fewer blocks, and zeros.

Blocks that every token skips are left out, and the rest are counted anew. Where every token skips
a block's attention or FFN alone, their matrices are zeros: whoever runs the folder gets what they
should. What is left of the route is followed by slimsearch, and by nobody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from slimsearch import files
from slimsearch.errors import ModelError
from slimsearch.model.checkpoint import INDEX, SINGLE
from slimsearch.model.vlm import VLM
from slimsearch.routes.detour import halves
from slimsearch.routes.route import EVERY, NONE, Route, Step

NOTE = (
    "its blocks do not run as config.json says: slimsearch follows slimsearch.json (`slimsearch "
    "generate`, `eval`, --runtime torch); plain from_pretrained runs every block for every token, "
    "which is another model."
)


def kept(vlm: VLM) -> tuple[int, ...]:
    """The blocks that a folder will hold."""
    every = tuple(range(len(vlm.blocks)))
    # DeepStack adds pictures' features behind the first blocks, whichever those are.
    stacked = getattr(vlm.model.config, "vision_config", None)
    if getattr(stacked, "deepstack_visual_indexes", None):
        return every
    return vlm.route.kept or every[:1]


def left(vlm: VLM) -> Route:
    """The route in a folder of the blocks that are kept."""
    return Route(tuple(vlm.route.steps[index] for index in kept(vlm)), vlm.route.merge)


def alone(route: Route) -> bool:
    """Whether from_pretrained makes the same of a folder: what is skipped there is zeros."""
    known = [Step(skip_attention=a, skip_ffn=b) for a in (NONE, EVERY) for b in (NONE, EVERY)]
    return route.merge is None and all(step in known for step in route.steps)


@torch.no_grad()
def zeros(vlm: VLM) -> dict[str, Tensor]:
    """By key on disk, what no token goes through in blocks that are kept: matrices and biases."""
    attention, ffn = halves(vlm.stages)
    found: dict[str, Tensor] = {}
    for index in kept(vlm):
        step = vlm.route.steps[index]
        paths = [attention] * step.lacks_attention() + [*ffn] * step.lacks_ffn()
        for path in paths:
            place = f"{vlm.block_path(index)}.{path}"
            part = vlm.model.get_submodule(place)
            for name, module in part.named_modules(prefix=place):
                if isinstance(module, nn.Linear):
                    for kind, weight in module.named_parameters():
                        found[vlm.disk_name(f"{name}.{kind}")] = torch.zeros_like(weight)
    return found


def write(vlm: VLM, folder: Path, changed: Mapping[str, Tensor]) -> None:
    """The weights of the blocks that are kept into a folder, and a config.json of so many."""
    if len(kept(vlm)) == len(vlm.blocks):
        vlm.checkpoint.copy_weights(folder, changed)
        return
    names = _renamed(vlm)
    shards = sorted({vlm.checkpoint.shards[key] for key in names})
    for shard in shards:
        with safe_open(vlm.checkpoint.folder / shard, "pt") as stored:
            tensors = {
                names[key]: changed[key].to("cpu", stored.get_slice(key)[:0].dtype).contiguous()
                if key in changed else stored.get_tensor(key)
                for key in stored.keys() if key in names  # noqa: SIM118
            }  # fmt: skip
        with files.writing(folder / shard):
            save_file(tensors, folder / shard, {"format": "pt"})
    if shards != [SINGLE]:
        places = {names[key]: place for key, place in vlm.checkpoint.shards.items() if key in names}
        size = sum((folder / shard).stat().st_size for shard in shards)
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (folder / INDEX).write_text(files.to_json(index, indent=2), "utf-8")
    _count_blocks(vlm, folder / "config.json")


def told(vlm: VLM, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with such a folder's own matrices, and what is left of the route."""
    told = {key: value for key, value in record.items() if key != "route"}
    if left(vlm):
        told["route"] = left(vlm).as_json()
    numbers = {f"blocks.{old}": f"blocks.{new}" for new, old in enumerate(kept(vlm))}
    nothing = zeros(vlm)
    if len(numbers) == len(vlm.blocks) and not nothing:
        return told
    shares, removed, total = {}, 0.0, 0
    for matrix in (matrix for matrix in vlm.matrices if matrix.block in numbers):
        gone = vlm.disk_name(vlm.matrix_parameter(matrix.name)) in nothing
        share = 1.0 if gone else record["matrices"][matrix.name]
        shares[matrix.name.replace(matrix.block, numbers[matrix.block])] = share
        removed, total = removed + share * matrix.size, total + matrix.size
    return {**told, "sparsity": removed / total, "matrices": shares}


def _renamed(vlm: VLM) -> dict[str, str]:
    """Keys on disk of what is kept, and what they are called where blocks are fewer."""
    begins = [_beginning(vlm, index) for index in range(len(vlm.blocks))]
    numbers = {old: new for new, old in enumerate(kept(vlm))}
    found = {}
    for key in vlm.checkpoint.shards:
        block = next((n for n, begin in enumerate(begins) if key.startswith(begin)), None)
        if block is None:
            found[key] = key
        elif block in numbers:
            found[key] = begins[numbers[block]] + key.removeprefix(begins[block])
    return found


def _beginning(vlm: VLM, index: int) -> str:
    """What the keys of a block's tensors begin with on disk."""
    place = vlm.block_path(index)
    inside = next(name for name, _ in vlm.model.get_submodule(place).named_parameters())
    key = vlm.disk_name(f"{place}.{inside}")
    if not key.endswith(inside):
        raise ModelError(
            f"{vlm.checkpoint.folder} calls {place}.{inside} '{key}': its blocks cannot be told "
            f"apart by their names, and so not be left out. Leave out [skip_block]."
        )
    return key.removesuffix(inside)


def _count_blocks(vlm: VLM, file: Path) -> None:
    """Writes into config.json how many blocks there are, and what it lists for each of them."""
    config = json.loads(file.read_text("utf-8"))
    inside = config.get("text_config", config)
    known, count, places = vlm.model.config.get_text_config(), len(vlm.blocks), kept(vlm)
    if getattr(known, "layer_types", None):
        inside["layer_types"] = list(known.layer_types)
    for key, value in inside.items():
        if isinstance(value, list) and len(value) == count and key.startswith("layer"):
            inside[key] = [value[place] for place in places]
    inside["num_hidden_layers"] = len(places)
    file.write_text(files.to_json(config, indent=2), "utf-8")
