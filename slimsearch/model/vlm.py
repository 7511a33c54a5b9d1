"""A vision-language model in memory: its parts, its prunable matrices, its losses.

Text and pairs reach the decoder as a Batch. Pictures are kept as the vision tower saw them, so that
a batch can be shown again whenever the projector has moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property, reduce
from operator import or_
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from slimsearch import card
from slimsearch.contracts import Architecture
from slimsearch.errors import ModelError
from slimsearch.model import keys
from slimsearch.model.batch import IGNORED, Batch, by_turn
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.sight import Sight, placing_pictures
from slimsearch.policy import Body, Matrix
from slimsearch.routes.detour import Detours, halves
from slimsearch.routes.kinds import PICTURE, PROMPT
from slimsearch.routes.passage import Passage
from slimsearch.routes.route import Route, plain

MOST_ROWS, LEAST_ROWS = 1024, 128  # positions whose logits are held at once
CACHED = 1 << 20  # logits that a processor's caches hold
Stages = Sequence[Mapping[str, str]]  # as contracts.Architecture has them


class Blocks(Protocol):
    """Decoder blocks in order; a streamed model holds only the last one that was asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> nn.Module: ...

    def __iter__(self) -> Iterator[nn.Module]: ...


class VLM:
    """A loaded model. `loading.load` is the way to get one."""

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        stages: Stages,
        checkpoint: Checkpoint,
        blocks: Blocks | None = None,
    ):
        self.model = model
        self.architecture = architecture
        self.stages = stages
        self.checkpoint = checkpoint
        self.decoder: Any = model.get_decoder()
        self.blocks: Blocks = blocks or self.decoder.layers
        self.attention: str = model.config._attn_implementation  # as it is asked for
        self.sight = Sight(model.model, architecture) if architecture.sees else None
        self.detours = Detours(model.model, self.decoder, stages)
        self._routes: dict[str, Route] = {}  # who says it -> how the blocks run
        self.adapters: dict[str, str] = {}  # weights beside matrices (adapting), while they stand
        self.changes = 0  # how often tunable weights were replaced
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = next(self.blocks[0].parameters()).dtype

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the model that everything is made from."""
        return {
            "sees": self.sees,
            "license": card.licence_in(self.checkpoint.card),
            **({"route": self.route.as_json()} if self.route else {}),
        }

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """Every prunable matrix, block by block, in the order in which they are computed."""
        return tuple(
            Matrix(name, *self.checkpoint.shape(self.disk_name(self.matrix_parameter(name))))
            for index in range(len(self.blocks))
            for role in self._paths
            for name in (f"blocks.{index}.{role}",)
        )

    @cached_property
    def body(self) -> Body:
        """What a policy can speak of."""
        return Body(self.matrices, self.sees, self.sight is not None and self.sight.classed)

    @property
    def route(self) -> Route:
        """How the blocks run now."""
        return reduce(or_, self._routes.values(), plain(len(self.blocks)))

    def reroute(self, who: str, route: Route) -> None:
        """Has the blocks run so, beside what others say; a plain route takes one's word back."""
        self._routes[who] = route
        self.detours.follow(self.route)
        if self.sight is not None:
            self.sight.follow(self.route.merge)

    def idle(self, matrix: str) -> bool:
        """Whether no token ever goes through a matrix, as the blocks run now."""
        _, index, role = matrix.split(".")
        step, (attention, _) = self.route.steps[int(index)], halves(self.stages)
        within = self._paths[role].split(".")[0] == attention
        return step.lacks_attention() if within else step.lacks_ffn()

    def linear(self, matrix: str) -> nn.Linear:
        """The layer behind one of our names, such as 'blocks.3.gate'."""
        _, index, role = matrix.split(".")
        module = self.blocks[int(index)].get_submodule(self._paths[role])
        if not isinstance(module, nn.Linear):
            raise ModelError(
                f"{matrix} is a {type(module).__name__}; only linear layers are pruned."
            )
        return module

    def disk_name(self, parameter: str) -> str:
        """The key under which the checkpoint holds a parameter."""
        found = self._on_disk.get(parameter)
        if found is None:
            raise ModelError(f"{self.checkpoint.folder} holds no tensor for {parameter}.")
        return found

    def from_disk(self, matrix: str) -> Tensor:
        """One of our matrices as the checkpoint holds it, in the model's dtype."""
        ((_, weight),) = self.checkpoint.read([self.disk_name(self.matrix_parameter(matrix))])
        return weight.to(self.device, self.dtype)

    def matrix_parameter(self, matrix: str) -> str:
        """The parameter name of one of our matrices, as transformers spells it."""
        _, index, role = matrix.split(".")
        return f"{self.block_path(int(index))}.{self._paths[role]}.weight"

    def block_path(self, index: int) -> str:
        """Where a decoder block is in the model."""
        return f"{self._decoder_path}.layers.{index}"

    @cached_property
    def disk_dtype(self) -> torch.dtype:
        """The dtype in which the checkpoint holds its matrices."""
        return self.checkpoint.dtype(self.disk_name(self.matrix_parameter(self.matrices[0].name)))

    @property
    def dtypes(self) -> tuple[torch.dtype, torch.dtype]:
        """What a solved matrix is rounded to on its way: the model's dtype, the checkpoint's."""
        return self.dtype, self.disk_dtype

    @property
    def sees(self) -> bool:
        return self.sight is not None

    @property
    def picture_token(self) -> int:
        """The id that stands for a picture's tokens in a sequence."""
        return self.model.config.image_token_id

    def given(self, batch: Batch, weights: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """What the decoder is called with for a batch: embeddings, positions and masks.

        `weights` stand in for the model's own, where they are in training (see `tunable`).
        """
        passage = {"passage": Passage(self.kinds(batch))} if self.detours.on else {}
        if batch.looks is None or self.sight is None:
            embeds = self.model.get_input_embeddings()(batch.ids)
            called = {"inputs_embeds": embeds, "use_cache": False}
            return called | self._one_way(embeds) | passage
        changed, _ = self._places(weights)
        caught: dict[str, Any] = {}

        def catch(_: nn.Module, __: tuple[()], called: dict[str, Any]) -> None:
            caught.update(called)
            raise _Reached

        hook = self.decoder.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with placing_pictures(self.checkpoint.folder), self.sight.again(batch.looks) as shown:
                inputs = {"input_ids": batch.ids, **shown, **self.marks(batch.ids, batch.classes)}
                functional_call(self.model, changed, (), {**inputs, "use_cache": False})
        except _Reached:
            return {**caught, **passage}
        finally:
            hook.remove()
        raise AssertionError("the decoder was never called")

    def kinds(self, batch: Batch) -> Tensor:
        """The batch's token classes, pictures told from questions, [rows, length]."""
        if not self.sees:
            return batch.classes
        shown = (batch.ids == self.picture_token) & (batch.classes == PROMPT)
        return batch.classes.masked_fill(shown, PICTURE)

    def marks(self, ids: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """What the architecture's `marks` say of each token."""
        meant = {"pictures": ids == self.picture_token, "answers": classes != PROMPT}
        return {name: meant[which].long() for name, which in self.architecture.marks.items()}

    def hidden(
        self, given: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The last hidden states, [rows, length, width]; `weights` as in `given`."""
        _, changed = self._places(weights)
        return functional_call(self.decoder, changed, (), dict(given)).last_hidden_state

    def loss(
        self,
        batch: Batch,
        weights: Mapping[str, Tensor] | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Summed cross-entropy over the batch's targets, in fp32.

        `given` stands in for what `given` gives, where a gradient is wanted there.
        """
        given = given or self.given(batch, weights)
        hidden, targets, _ = self.predicting(batch, given, weights)
        losses = [
            functional.cross_entropy(self.logits(rows), wanted, reduction="sum")
            for rows, wanted in zip(
                hidden.split(self.logit_rows), targets.split(self.logit_rows), strict=True
            )
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def mean_loss(self, batches: Iterable[Batch]) -> float:
        """Cross-entropy per predicted token over several batches."""
        total, count = 0.0, 0
        for batch in batches:
            total += self.loss(batch).item()
            count += int((batch.targets != IGNORED).sum())
        return total / max(count, 1)

    @torch.no_grad()
    def answers_right(self, batch: Batch) -> list[list[bool]]:
        """For each row, whether greedy decoding gives each answer to the last token.

        Greedy decoding reproduces an answer exactly when every one of its tokens is the most
        likely one after those before it, so one pass over the whole conversation decides.
        """
        wanted = by_turn(batch, batch.targets[batch.targets != IGNORED])
        return [
            [said == row[turn] for turn, said in turns.items()]
            for turns, row in zip(self.says(batch), wanted, strict=True)
        ]

    @torch.no_grad()
    def says(self, batch: Batch) -> list[dict[int, list[int]]]:
        """For each row, by turn, the likeliest token at every place of the answer."""
        hidden, _, _ = self.predicting(batch, self.given(batch))
        pieces = [self.logits(rows).argmax(-1) for rows in hidden.split(self.logit_rows)]
        return by_turn(batch, torch.cat(pieces))

    def predicting(
        self,
        batch: Batch,
        given: Mapping[str, Any],
        weights: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The last hidden states that predict something, their targets, and where they stand."""
        hidden = self.hidden(given, weights)
        where = (batch.targets != IGNORED).nonzero(as_tuple=True)
        return hidden[where], batch.targets[where], where

    @property
    def logit_rows(self) -> int:
        """Positions whose logits are held at once: on a processor, so many that they stay near."""
        if self.device.type != "cpu":
            return MOST_ROWS
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        return min(MOST_ROWS, max(LEAST_ROWS, CACHED // vocabulary))

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token for each hidden state, [rows, vocabulary], in fp32."""
        found = self.model.get_output_embeddings()(hidden).float()
        cap = self.logit_cap
        return found if cap is None else (found / cap).tanh() * cap

    @property
    def logit_cap(self) -> float | None:
        """What a tanh keeps logits within."""
        return None if self.sees else getattr(self.model.config, "final_logit_softcapping", None)

    @cached_property
    def projector_parameters(self) -> dict[str, str]:
        """The projector's weights by name, and each one's place in the model."""
        modules = self.sight.projectors if self.sight else {}
        return {
            name if len(modules) == 1 else f"{path}.{name}": f"model.{path}.{name}"
            for path, module in modules.items()
            for name, _ in module.named_parameters()
        }

    @cached_property
    def gain_parameters(self) -> dict[str, str]:
        """The weights of the decoder's norms by name, and each one's place in the model."""
        return {
            f"gain.{path}.{name}": f"{self._decoder_path}.{path}.{name}"
            for path, module in self.decoder.named_modules()
            if type(module).__name__.endswith("Norm")
            for name, _ in module.named_parameters(recurse=False)
        }

    @cached_property
    def matrix_parameters(self) -> dict[str, str]:
        """The prunable matrices by name, and each one's place in the model."""
        return {f"kept.{m.name}": self.matrix_parameter(m.name) for m in self.matrices}

    @property
    def tunable(self) -> dict[str, str]:
        """The few weights that may be trained in any model, by name, and their places in it."""
        return self._own_tunable | self.adapters if self.adapters else self._own_tunable

    @property
    def trainable(self) -> dict[str, str]:
        """Every weight that may be trained, by name, and its place in the model."""
        return self.tunable | self.matrix_parameters

    def weights(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """A copy in fp32 of the tunable weights, or of some that are trainable."""
        places = self.trainable
        return {
            name: self.model.get_parameter(places[name]).detach().to(self.device).float().clone()
            for name in (self.tunable if names is None else names)
        }

    @torch.no_grad()
    def fresh_projector(self, seed: int) -> dict[str, Tensor]:
        """The projector's weights as training from scratch begins with them."""
        modules = self.sight.projectors if self.sight else {}
        found = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for path, module in modules.items():
                anew = deepcopy(module).to("cpu", torch.float32)
                for part in anew.modules():
                    self.model._init_weights(part)
                for name, weight in anew.named_parameters():
                    found[name if len(modules) == 1 else f"{path}.{name}"] = weight.detach()
        return {name: weight.to(self.device) for name, weight in found.items()}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces trainable weights, rounded to the model's dtype."""
        places = self.trainable
        for name, weight in weights.items():
            self.model.get_parameter(places[name]).copy_(weight)
        self.changes += bool(weights)

    @cached_property
    def _own_tunable(self) -> dict[str, str]:
        return self.projector_parameters | self.gain_parameters

    def _one_way(self, embeds: Tensor) -> dict[str, Tensor]:
        """The mask by which text is read from left to right, where a decoder would read it at once
        as it does a prompt (PaliGemma's)."""
        if not getattr(self.decoder.config, "use_bidirectional_attention", False):
            return {}
        length, least = embeds.shape[1], torch.finfo(embeds.dtype).min
        ahead = torch.full((length, length), least, dtype=embeds.dtype, device=embeds.device)
        return {"attention_mask": ahead.triu(1)[None, None]}

    def _places(
        self, weights: Mapping[str, Tensor] | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights in training by their place: outside the decoder, and within it."""
        own, places = f"{self._decoder_path}.", self.trainable
        outside, within = dict[str, Tensor](), dict[str, Tensor]()
        for name, weight in (weights or {}).items():
            place = places[name]
            if place.startswith(own):
                within[place.removeprefix(own)] = weight
            else:
                outside[place] = weight
        return outside, within

    @cached_property
    def _paths(self) -> dict[str, str]:
        return {role: path for stage in self.stages for role, path in stage.items()}

    @cached_property
    def _decoder_path(self) -> str:
        return next(path for path, part in self.model.named_modules() if part is self.decoder)

    @cached_property
    def _on_disk(self) -> dict[str, str]:
        return keys.on_disk(self.model, self.checkpoint.shards)


class _Reached(Exception):
    """The decoder was called; what it was called with is all that is wanted."""
