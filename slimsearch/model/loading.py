"""Brings a checkpoint into memory as a VLM, or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from slimsearch import plugins
from slimsearch.contracts import Architecture
from slimsearch.errors import ModelError, SettingsError, SlimsearchError
from slimsearch.model.checkpoint import RECORD, Checkpoint, unreadable
from slimsearch.model.vlm import VLM, Stages
from slimsearch.processor import BFLOAT16, processor_flags
from slimsearch.routes.route import Route, from_json, plain

AUTO = "auto"
CAME_WITH = "the model's folder"  # says how the blocks of a model run that was written so
PIECE = 1 << 22  # numbers of a weight that are looked at together
# Parts of model_types whose decoders mix experts.
MIXED = (
    "moe", "mixtral", "dbrx", "deepseek_v2", "deepseek_v3", "dots1", "gpt_oss", "llama4", "jamba",
)  # fmt: skip


def load(
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    attention: str = AUTO,
    blocks: int | None = None,
) -> VLM:
    """Reads a checkpoint into memory, ready to be measured and pruned.

    `blocks` reads the first so many decoder blocks only. For a model that need not be whole in one
    place, `placing.load` is the way.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    architecture = architecture_of(checkpoint)
    stages = stages_of(checkpoint)
    place = pick_device(device)
    loader = AutoModelForImageTextToText if architecture.sees else AutoModelForCausalLM
    config = config_of(checkpoint)
    chosen = pick_dtype(checkpoint, dtype, place)
    with quiet_transformers(), refused(checkpoint):
        if blocks is not None:
            config.get_text_config().num_hidden_layers = blocks
        loaded: Any = loader.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=chosen,
            attn_implementation=None if attention == AUTO else attention,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{checkpoint.folder} lacks {len(missing)} tensors, {missing[0]} among them; fetch the "
            f"model again."
        )
    check_finite(checkpoint, model.named_parameters())
    model.eval().requires_grad_(False).to(place)
    vlm = VLM(model, architecture, stages, checkpoint)
    if blocks is None:
        follow_route(vlm)
    return vlm


def follow_route(vlm: VLM) -> None:
    """Has the blocks run as the model's folder says, if it says anything."""
    if route := route_of(vlm.checkpoint, len(vlm.blocks)):
        vlm.reroute(CAME_WITH, route)


def route_of(checkpoint: Checkpoint, blocks: int) -> Route:
    """How a folder says that its model's blocks run."""
    told = checkpoint.record.get("route")
    return from_json(told, blocks, str(checkpoint.folder / RECORD)) if told else plain(blocks)


def config_of(checkpoint: Checkpoint) -> Any:
    """The configuration as transformers reads it, defaults filled in."""
    from transformers import AutoConfig

    _check_depth(checkpoint)
    with quiet_transformers(), refused(checkpoint):
        return AutoConfig.from_pretrained(
            checkpoint.folder, trust_remote_code=False, local_files_only=True
        )


def _check_depth(checkpoint: Checkpoint) -> None:
    """Refuses as many blocks as the weights cannot hold: only to list them could take all day."""
    found = checkpoint.config
    for part in (found, found.get("text_config"), found.get("vision_config")):
        depth = part.get("num_hidden_layers") if isinstance(part, dict) else None
        if isinstance(depth, int) and not 0 < depth <= (len(checkpoint.shards) or depth):
            raise ModelError(
                f"{checkpoint.folder / 'config.json'}: num_hidden_layers = {depth}, and the "
                f"weights are {len(checkpoint.shards)} tensors. Fetch the model again."
            )


def block_count(checkpoint: Checkpoint) -> int:
    """How many blocks its decoder has."""
    return config_of(checkpoint).get_text_config().num_hidden_layers


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """The plug-in that knows this model_type."""
    found = _known(checkpoint, checkpoint.model_type, "is")
    stages_of(checkpoint)
    return found


def stages_of(checkpoint: Checkpoint) -> Stages:
    """The matrices of a decoder block: by the model's own file, or by that of what is inside."""
    own = _known(checkpoint, checkpoint.model_type, "is")
    inside = config_of(checkpoint).get_text_config()
    _check_experts(checkpoint, inside.model_type, inside.to_dict())
    if own.stages is not None:
        return own.stages
    found = _known(checkpoint, inside.model_type, "has inside").stages
    assert found is not None
    return found


def _known(checkpoint: Checkpoint, kind: str, is_: str) -> Architecture:
    known = plugins.names("architectures")
    if kind in known:
        return plugins.find("architectures", kind)()
    _check_experts(checkpoint, kind, checkpoint.config | checkpoint.config.get("text_config", {}))
    raise ModelError(
        f"{checkpoint.folder} {is_} a '{kind}'. Looked for slimsearch/architectures/{kind}.py and "
        f"for an installed plug-in of that name in the group slimsearch.architectures; there is "
        f"neither. Known: {', '.join(known)}. To add one, write that file: a class derived from "
        f"slimsearch.contracts.Architecture that names the matrices of a decoder block (`stages`) "
        f"and, for a model that sees, what stands between its vision tower and its decoder "
        f"(`projectors`); slimsearch/architectures/__init__.py says it in five steps."
    )


def _check_experts(checkpoint: Checkpoint, kind: str, facts: Mapping[str, Any]) -> None:
    """Refuses a decoder that mixes experts: they are no linear layers."""
    counted = [
        f"{key} {value}"
        for key, value in facts.items()
        if "expert" in key and isinstance(value, int) and value > 1
    ]
    if counted or any(part in kind for part in MIXED):
        raise ModelError(
            f"{checkpoint.folder} is a '{checkpoint.model_type}' whose decoder, "
            f"'{kind}', mixes experts{f' ({counted[0]})' if counted else ''}. Such decoders are "
            f"not supported yet; give a dense model."
        )


def pick_device(device: str) -> torch.device:
    """'auto' takes a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"Device '{device}' is not to be had here ({str(error).splitlines()[0]}). "
            f"Use --device cpu."
        ) from None
    return place


def pick_dtype(checkpoint: Checkpoint, dtype: str, device: torch.device) -> torch.dtype:
    """'auto' is the model's own dtype, on a CPU only where that is bf16 and done in hardware."""
    if dtype != "auto":
        return getattr(torch, dtype)
    own = config_of(checkpoint).dtype or torch.float32
    native = own == torch.bfloat16 and processor_flags() & BFLOAT16
    return own if device.type != "cpu" or native else torch.float32


def check_finite(checkpoint: Checkpoint, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuses weights that are not numbers. Looks at a piece of each at a time: on the way torch
    makes three times what it looks at."""
    for name, weight in weights:
        if not all(bool(torch.isfinite(piece).all()) for piece in weight.flatten().split(PIECE)):
            raise ModelError(
                f"{checkpoint.folder}: its weights hold NaN or infinity, in {name}. Fetch the "
                f"model again; a bf16 model may not fit into --dtype float16."
            )


class quiet_transformers:
    """Silences transformers' progress bars and chatter within the block."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._verbosity)
        logging.enable_progress_bar()


class refused:
    """Turns what transformers raises on a broken folder into a ModelError; `read` names the files
    that were read."""

    def __init__(self, checkpoint: Checkpoint, read: str = "it"):
        self.checkpoint, self.read = checkpoint, read

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, SlimsearchError):
            return  # it says already what is wrong
        if isinstance(error, ValueError) and "attn_implementation=" in str(error):
            raise SettingsError(
                f"attention = 'sdpa' cannot be: transformers computes the attention of a "
                f"'{self.checkpoint.model_type}' by itself. Use --attention eager, or leave it out."
            ) from error
        if isinstance(error, Exception) and "ignore_mismatched_sizes" in str(error):
            raise ModelError(
                f"{self.checkpoint.folder}: its weights have other shapes than its config.json "
                f"says. Fetch the model again."
            ) from error
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            reason = str(error).strip().splitlines()[0] if str(error).strip() else kind
            folder = self.checkpoint.folder
            raise ModelError(
                unreadable(folder)
                or f"{folder} could not be loaded: {reason}. Compare {self.read} with a folder "
                f"that save_pretrained wrote."
            ) from error
