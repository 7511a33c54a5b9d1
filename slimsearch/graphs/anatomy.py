"""What a decoder is made of, read from the model: its weights where they lie, nothing copied but
norms and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from slimsearch.errors import ModelError
from slimsearch.graphs.layouts import KNOWN, Layout
from slimsearch.model.vlm import VLM
from slimsearch.routes.route import EVERY, NONE, Route, Step

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu")
# Rotary variants whose frequencies do not change with the length of what is read.
ROTARY = ("default", "linear", "dynamic", "yarn", "llama3")
FULL, SLIDING = "full_attention", "sliding_attention"
SEQUENTIAL = Step()  # attention first, and then the FFN


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

    @property
    def role(self) -> str:
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Norm:
    """RMSNorm; LayerNorm where it is centred."""

    scale: Tensor | None
    shift: Tensor | None = None
    centred: bool = False


@dataclass(frozen=True)
class Rotation:
    """How positions turn queries and keys; what a head has beyond the tables' width stays."""

    cos: Tensor  # [positions, width]
    sin: Tensor


@dataclass(frozen=True)
class Block:
    """A norm that is None is not there. Those after a half stand before its sum with what went
    past it; the closing ones behind that sum."""

    asking: tuple[Matrix, ...]  # q, k, v, or one matrix of all their rows
    o: Matrix
    opening: tuple[Matrix, ...]  # gate and up, one matrix of both, or up alone where nothing gates
    down: Matrix
    before_attention: Norm | None = None
    after_attention: Norm | None = None
    closing_attention: Norm | None = None
    before_mlp: Norm | None = None
    after_mlp: Norm | None = None
    closing_mlp: Norm | None = None
    q_norm: Norm | None = None  # over each head
    k_norm: Norm | None = None
    rotation: Rotation | None = None
    window: int | None = None  # how many tokens a query sees at most, itself among them
    step: Step = SEQUENTIAL  # how it runs, as far as a graph can say

    @property
    def matrices(self) -> dict[str, Matrix]:
        """By role, in the order in which they are computed."""
        ordered = (*self.asking, self.o, *self.opening, self.down)
        return {matrix.role: matrix for matrix in ordered}

    def changed(self, change: Callable[[Matrix], Matrix]) -> Block:
        """The block with every matrix replaced by what `change` makes of it."""
        return replace(
            self,
            asking=tuple(map(change, self.asking)),
            o=change(self.o),
            opening=tuple(map(change, self.opening)),
            down=change(self.down),
        )


@dataclass(frozen=True)
class Decoder:
    """Blocks of attention with grouped keys and an MLP, and what stands around them."""

    blocks: tuple[Block, ...]
    embedding: Tensor  # [vocabulary, width]
    norm: Norm | None
    head: Matrix  # may share its weight with the embedding
    heads: int
    key_heads: int
    head_width: int
    epsilon: float
    activation: str
    gated: bool  # whether the first of `opening`'s rows, activated, multiply the rest
    scale: float  # of scores
    positions: int  # how many tokens the model reads at most
    embedding_scale: float = 1.0
    entry: Matrix | None = None  # between embeddings and blocks
    exit: Matrix | None = None  # between blocks and head
    places: Tensor | None = None  # [positions, width], added to what enters the first block
    query_scale: Tensor | None = None  # [positions], of queries
    score_cap: float | None = None  # tanh keeps scores within it
    logit_cap: float | None = None
    groups: bool = False  # whether tokens of one group see each other, the later ones too

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.embedding.shape[1]

    @property
    def matrices(self) -> list[Matrix]:
        """All of them, in the order in which they are computed."""
        inner = [matrix for block in self.blocks for matrix in block.matrices.values()]
        around = (self.entry, *inner, self.exit, self.head)
        return [matrix for matrix in around if matrix is not None]

    @property
    def rotations(self) -> list[Rotation]:
        """Each of them once, in the order of the blocks."""
        found = [block.rotation for block in self.blocks if block.rotation is not None]
        return list({id(one): one for one in found}.values())

    @property
    def windows(self) -> list[int | None]:
        """Those that blocks have, each once; None for a block without."""
        return list(dict.fromkeys(block.window for block in self.blocks))

    @property
    def beyond(self) -> list[str]:
        """What of it LLaMA does not have, in words."""
        norms = ("after_attention", "closing_attention", "after_mlp", "closing_mlp")
        turned = [one.cos.shape[1] for one in self.rotations]
        inner = [getattr(block, name) for block in self.blocks for name in norms]
        found = {
            "norms of other places": any(inner) or self.norm is None,
            "norms of heads": any(block.q_norm or block.k_norm for block in self.blocks),
            "LayerNorm": self.norm is not None and self.norm.centred,
            "windows": any(self.windows),
            "matrices in one": any(len(block.asking) < 3 for block in self.blocks),
            "no gate": not self.gated,
            "positions that are added": self.places is not None,
            "several rotations": len(turned) > 1,
            "heads that turn in part": any(width < self.head_width for width in turned),
            "scores of another scale": self.scale != self.head_width**-0.5,
            "queries that grow": self.query_scale is not None,
            "caps": self.score_cap or self.logit_cap,
            "scaled embeddings": self.embedding_scale != 1,
            "projections around its blocks": self.entry or self.exit,
            "groups that see each other": self.groups,
        }
        return [what for what, there in found.items() if there]


def read(vlm: VLM) -> Decoder:
    """The parts of a loaded model's decoder for a graph, or why it cannot be spelled out."""
    if what := unsaid(vlm.route):
        raise _refused(vlm, what)
    return taken_apart(vlm)


def unsaid(route: Route) -> str:
    """What of a route no graph says, and what does; '' for nothing."""
    what = _unsaid(route)
    why = "the forms hf and native keep it, and --runtime torch and native follow it"
    return f"{what}; {why}" if what else ""


def taken_apart(vlm: VLM) -> Decoder:
    """The same for an engine that follows every route."""
    config = vlm.model.config.get_text_config()
    layout = KNOWN.get(config.model_type)
    if layout is None:
        raise _refused(vlm, f"is a '{config.model_type}'; {', '.join(KNOWN)} can be")
    return _Reader(vlm, config, layout).decoder()


class _Reader:
    def __init__(self, vlm: VLM, config: Any, layout: Layout):
        self.vlm, self.config, self.layout = vlm, config, layout
        self.inside: Any = vlm.decoder
        self.positions: int = config.max_position_embeddings
        self.turns: dict[str, Rotation] = {}  # by kind of block

    def decoder(self) -> Decoder:
        vlm, config, layout = self.vlm, self.config, self.layout
        activation = getattr(config, layout.activation)
        if activation not in ACTIVATIONS:
            raise _refused(vlm, f"uses '{activation}'; {', '.join(ACTIVATIONS)} are known")
        if getattr(config, "use_bidirectional_attention", False) and not vlm.architecture.marks:
            raise _refused(vlm, "has every token attend to those after it")
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        embedding: Any = vlm.model.get_input_embeddings()
        head: nn.Linear = vlm.model.get_output_embeddings()
        blocks = tuple(self._block(index) for index in range(len(vlm.blocks)))
        return Decoder(
            blocks=blocks,
            embedding=embedding.weight,
            norm=self._norm(self.inside, layout.last),
            head=Matrix("head", head.weight, head.bias),
            heads=heads,
            key_heads=getattr(config, "num_key_value_heads", heads),
            head_width=head_width,
            epsilon=self._epsilon(),
            activation=activation,
            gated=layout.gated,
            scale=(getattr(config, layout.scale) if layout.scale else head_width) ** -0.5,
            positions=self.positions,
            embedding_scale=getattr(embedding, "scalar_embed_scale", 1.0),
            entry=self._matrix("entry", getattr(self.inside, "project_in", None)),
            exit=self._matrix("exit", getattr(self.inside, "project_out", None)),
            places=None if layout.rotates else self._places(),
            query_scale=self._query_scale(),
            score_cap=getattr(config, layout.score_cap) if layout.score_cap else None,
            logit_cap=vlm.logit_cap,
            groups=bool(vlm.architecture.marks),
        )

    def _block(self, index: int) -> Block:
        """One block: its matrices are those that policies name, in their order."""
        vlm, layout, block = self.vlm, self.layout, self.vlm.blocks[index]
        asking, (o,), opening, (down,) = (
            tuple(
                Matrix(name, layer.weight, layer.bias)
                for name in (f"blocks.{index}.{role}" for role in stage)
                for layer in (vlm.linear(name),)
            )
            for stage in vlm.stages
        )
        before = getattr(self.config, "do_layer_norm_before", True)
        norms = {
            name: self._norm(block, getattr(layout, name))
            for name in ("after_attention", "after_mlp", "q_norm", "k_norm")
        } | {
            f"{'before' if before else 'closing'}_{half}": self._norm(
                block, getattr(layout, f"before_{half}")
            )
            for half in ("attention", "mlp")
        }  # fmt: skip
        kind = self.config.layer_types[index] if layout.by_kind else SLIDING
        return Block(
            asking, o, opening, down, **norms,
            rotation=self._rotation(kind) if layout.rotates else None,
            window=self._window(kind),
            step=vlm.route.steps[index],
        )  # fmt: skip

    def _window(self, kind: str) -> int | None:
        if kind not in (FULL, SLIDING):
            raise _refused(self.vlm, f"has blocks of '{kind}'")
        width = getattr(self.config, "sliding_window", None) or self.positions
        return width if kind == SLIDING and width < self.positions else None

    def _norm(self, inside: Any, path: str) -> Norm | None:
        """The norm at a path, as one scale and shift; None where there is none."""
        module = reduce(getattr, path.split("."), inside) if path else None
        if module is None:
            return None
        scale = module.weight
        if self.layout.around_one:
            scale = 1 + scale.detach().float()
        return Norm(scale, getattr(module, "bias", None), isinstance(module, nn.LayerNorm))

    def _matrix(self, name: str, layer: nn.Linear | None) -> Matrix | None:
        return None if layer is None else Matrix(name, layer.weight, layer.bias)

    def _epsilon(self) -> float:
        first: Any = self.vlm.blocks[0].get_submodule(self.layout.before_attention)
        return first.eps if isinstance(first, nn.LayerNorm) else self.config.rms_norm_eps

    def _places(self) -> Tensor:
        table = self.inside.embed_positions
        return table.weight[table.offset :]

    def _query_scale(self) -> Tensor | None:
        """Of queries, which Ministral 3 lengthens as positions grow."""
        rope = getattr(self.config, "rope_parameters", None) or {}
        growth = rope.get("llama_4_scaling_beta")
        if growth is None:
            return None
        whole = torch.arange(self.positions) // rope["original_max_position_embeddings"]
        return 1 + growth * torch.log1p(whole.float())

    def _rotation(self, kind: str) -> Rotation:
        """Cosines and sines of every position, from the model's own module."""
        rotary = self.inside.rotary_emb
        own = rotary.rope_type if isinstance(rotary.rope_type, dict) else {}  # one for each kind
        kind = kind if own else ""
        if kind not in self.turns:
            found = own.get(kind, rotary.rope_type)
            if found not in ROTARY:
                raise _refused(
                    self.vlm, f"rotates positions by '{found}'; {', '.join(ROTARY)} are known"
                )
            at = torch.arange(self.positions, device=self.vlm.device).unsqueeze(0)
            like, named = torch.zeros(1, device=self.vlm.device), [kind] if own else []
            with torch.no_grad():
                cos, sin = rotary(like, at, *named)
            self.turns[kind] = Rotation(cos[0].float(), sin[0].float())
        return self.turns[kind]


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


def _refused(vlm: VLM, what: str) -> ModelError:
    return ModelError(
        f"{vlm.checkpoint.folder} cannot be written as a graph: its decoder {what}. "
        f"slimsearch/graphs/ says how to add one; --to hf works for every model."
    )
