"""What a decoder is made of, read from the model: its weights where they lie, nothing copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimsearch.errors import ModelError
from slimsearch.route import EVERY, NONE, Route, Step
from slimsearch.vlm import VLM

SEQUENTIAL = Step()  # attention first, and then the FFN
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu")
# Rotary variants whose frequencies do not change with the length of what is read.
ROTARY = ("default", "linear", "dynamic", "yarn", "llama3")


@dataclass(frozen=True)
class Matrix:
    """A linear layer, under the name that policies use, such as 'blocks.3.gate'."""

    name: str
    weight: Tensor  # [rows out, columns in], as the model holds it
    bias: Tensor | None
    blank: int = 0  # columns of zeros that are written behind the weight's own

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, as they are written."""
        rows, columns = self.weight.shape
        return rows, columns + self.blank


@dataclass(frozen=True)
class Block:
    before_attention: Tensor  # RMSNorm's scale
    q: Matrix
    k: Matrix
    v: Matrix
    o: Matrix
    before_mlp: Tensor
    gate: Matrix
    up: Matrix
    down: Matrix
    step: Step = SEQUENTIAL  # how it runs, as far as a graph can say


@dataclass(frozen=True)
class Decoder:
    """A LLaMA-shaped decoder: RMSNorm, rotary attention with grouped keys, a gated MLP."""

    blocks: tuple[Block, ...]
    embedding: Tensor  # [vocabulary, width]
    norm: Tensor
    head: Matrix  # may share its weight with the embedding
    heads: int
    key_heads: int
    head_width: int
    epsilon: float
    activation: str
    cos: Tensor  # [positions, head_width]
    sin: Tensor

    @property
    def width(self) -> int:
        return self.embedding.shape[1]

    @property
    def positions(self) -> int:
        """How many tokens the model reads at most."""
        return len(self.cos)


def read(vlm: VLM) -> Decoder:
    """The parts of a loaded model's decoder for a graph, or why it cannot be spelled out."""
    if unsaid := _unsaid(vlm.route):
        why = "the forms hf and native keep it, and --runtime torch and native follow it"
        raise _refused(vlm, f"{unsaid}; {why}")
    return taken_apart(vlm)


def taken_apart(vlm: VLM) -> Decoder:
    """The same for an engine that follows every route."""
    config = vlm.model.config.get_text_config()
    reader = KNOWN.get(config.model_type)
    if reader is None:
        raise _refused(vlm, f"is a '{config.model_type}'; {', '.join(KNOWN)} can be")
    return reader(vlm, config)


def _llama(vlm: VLM, config: Any) -> Decoder:
    if config.hidden_act not in ACTIVATIONS:
        raise _refused(vlm, f"uses '{config.hidden_act}'; {', '.join(ACTIVATIONS)} are known")
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    if "sliding_attention" in kinds and window < config.max_position_embeddings:
        raise _refused(vlm, "reads through a window")
    decoder: Any = vlm.decoder
    cos, sin = _rotation(vlm, decoder.rotary_emb, config.max_position_embeddings)
    heads = config.num_attention_heads
    head: nn.Linear = vlm.model.get_output_embeddings()
    return Decoder(
        blocks=tuple(_llama_block(vlm, index) for index in range(len(vlm.blocks))),
        embedding=vlm.model.get_input_embeddings().weight,
        norm=decoder.norm.weight,
        head=Matrix("head", head.weight, head.bias),
        heads=heads,
        key_heads=config.num_key_value_heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        epsilon=config.rms_norm_eps,
        activation=config.hidden_act,
        cos=cos,
        sin=sin,
    )


KNOWN: dict[str, Callable[[VLM, Any], Decoder]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
}


def _llama_block(vlm: VLM, index: int) -> Block:
    block: Any = vlm.blocks[index]

    def matrix(role: str) -> Matrix:
        layer = vlm.linear(f"blocks.{index}.{role}")
        return Matrix(f"blocks.{index}.{role}", layer.weight, layer.bias)

    return Block(
        before_attention=block.input_layernorm.weight,
        before_mlp=block.post_attention_layernorm.weight,
        **{role: matrix(role) for role in ("q", "k", "v", "o", "gate", "up", "down")},
        step=vlm.route.steps[index],
    )


def _unsaid(route: Route) -> str:
    """What of a route no graph says, in which all tokens go the same way; '' for nothing."""
    if route.merge is not None:
        return "merges pictures' tokens"
    for index, step in enumerate(route.steps):
        kinds = step.skip_block, step.skip_attention, step.skip_ffn
        if any(some not in (NONE, EVERY) for some in kinds):
            return f"has some tokens skip parts of block {index} that others go through"
        if step.window is not None:
            return f"cuts attention among pictures' tokens in block {index}"
    return ""


@torch.no_grad()
def _rotation(vlm: VLM, rotary: Any, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, from the model's own module."""
    if rotary.rope_type not in ROTARY:
        raise _refused(
            vlm, f"rotates positions by '{rotary.rope_type}'; {', '.join(ROTARY)} are known"
        )
    places = torch.arange(positions, device=vlm.device).unsqueeze(0)
    cos, sin = rotary(torch.zeros(1, device=vlm.device), places)
    return cos[0].float(), sin[0].float()


def _refused(vlm: VLM, what: str) -> ModelError:
    return ModelError(
        f"{vlm.checkpoint.folder} cannot be written as a graph: its decoder {what}. "
        f"slimsearch/graphs/ says how to add one; --to hf works for every model."
    )
