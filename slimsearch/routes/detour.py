"""Makes a decoder's blocks run a route, and as they came again.

While a route is on, each block stands behind a Detour: it takes out the tokens that the block
computes, runs the block's own code on those, and puts what comes of them back. Attention and FFN
stand behind it in the same way. Nothing in the model is replaced but the function that a module is
called by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from slimsearch.errors import ModelError
from slimsearch.routes import attention
from slimsearch.routes.kinds import PADDING, PICTURE, PROMPT, TEXT
from slimsearch.routes.passage import Passage
from slimsearch.routes.route import PICTURES, Kinds, Route, Step, plain
from slimsearch.routes.stand_in import stand_in

NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm", "final_layer_norm")


class Detours:
    """The blocks of one decoder; `base` is the model that calls it, with pictures where it sees."""

    def __init__(self, base: nn.Module, decoder: Any, stages: Sequence[Mapping[str, str]]):
        self._attention, self._ffn = halves(stages)
        self._queries = next((stage["q"] for stage in stages if "q" in stage), "")
        self._base, self._decoder = base, decoder
        self._route: Route | None = None
        self._undo: list[Callable[[], None]] = []
        self._told: Tensor | None = None  # classes of the tokens that the next call reads
        self._pictures: Tensor | None = None

    @property
    def route(self) -> Route:
        """The route that is on; the plain one where none is."""
        return self._route or plain(len(self._decoder.layers))

    @property
    def on(self) -> bool:
        return self._route is not None

    def follow(self, route: Route) -> None:
        """Puts a route on, in place of another that may be on."""
        if route == self._route:
            return
        self.leave()
        if not route:
            return
        attention.register()
        detours = [
            _Detour(index, step, block, self._attention, self._ffn, self._queries)
            for index, (step, block) in enumerate(
                zip(route.steps, self._decoder.layers, strict=True)
            )
        ]
        for before, after in pairwise(detours):
            after.beside = before.step.parallel_next
        self._route = route
        for detour in detours:
            self._undo += detour.stand_in()
        config = self._decoder.config
        self._was = config._attn_implementation
        config._attn_implementation = attention.NAME
        self._hooks = [
            self._base.register_forward_pre_hook(self._note_pictures, with_kwargs=True),
            self._decoder.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._decoder.register_forward_hook(self._end, with_kwargs=True),
        ]

    def leave(self) -> None:
        """The decoder as it came."""
        if self._route is None:
            return
        for undo in self._undo:
            undo()
        for hook in self._hooks:
            hook.remove()
        self._decoder.config._attn_implementation = self._was
        self._undo, self._route, self._told, self._pictures = [], None, None, None

    def tell(self, kinds: Tensor) -> None:
        """Of which class each token is that the next call reads; which are pictures' is found."""
        self._told = kinds if self.on else None

    def _note_pictures(self, _: nn.Module, args: tuple[Any, ...], called: dict[str, Any]) -> None:
        ids = called.get("input_ids", args[0] if args else None)
        token = getattr(getattr(self._base, "config", None), "image_token_id", None)
        self._pictures = None if ids is None or token is None else ids == token

    def _begin(self, _: nn.Module, args: tuple[Any, ...], called: dict[str, Any]) -> Any:
        """Gives the call its Passage, where it has none."""
        assert self._route is not None
        passage = called.get("passage")
        embeds = called.get("inputs_embeds")
        kinds, self._told = self._told, None
        if passage is not None:
            kinds = passage.kinds
        elif kinds is None:
            ids = called.get("input_ids", args[0] if args else None)
            shown = ids if embeds is None else embeds
            assert shown is not None
            kinds = self._guess(shown, called)
        kinds = self._pictured(kinds)
        if self._route.merge is not None and embeds is not None:
            merged = (kinds == PICTURE) & (embeds == 0).all(-1)
            kinds = kinds.masked_fill(merged, PADDING)
        return args, {**called, "passage": Passage(kinds, called.get("past_key_values"))}

    def _guess(self, shown: Tensor, called: Mapping[str, Any]) -> Tensor:
        """Classes where none were told: what follows something read, token by token, is text."""
        rows, length = shown.shape[:2]
        cache = called.get("past_key_values")
        said = length == 1 and cache is not None and cache.get_seq_length() > 0
        kinds = torch.full(
            (rows, length), TEXT if said else PROMPT, dtype=torch.uint8, device=shown.device
        )
        mask = called.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            kinds[mask[:, -length:] == 0] = PADDING
        return kinds

    def _pictured(self, kinds: Tensor) -> Tensor:
        """The same with pictures told from questions, where the model was called with ids."""
        pictures, self._pictures = self._pictures, None
        if pictures is None or pictures.shape != kinds.shape:
            return kinds
        return kinds.masked_fill(pictures & (kinds == PROMPT), PICTURE)

    def _end(self, _: nn.Module, __: Any, called: dict[str, Any], ___: Any) -> None:
        called["passage"].close()


class _Detour:
    """One block that stands behind a Step; `beside` says how it takes in what the block before did
    beside it."""

    def __init__(
        self,
        index: int,
        step: Step,
        block: Any,
        attention: str,
        ffn: tuple[str, ...],
        queries: str,
    ):
        self.index, self.step, self.beside = index, step, ""
        self._block, self._attention = block, block.get_submodule(attention)
        self._ffn = [block.get_submodule(path) for path in ffn]
        self._asks = block.get_submodule(queries) if queries and step.window == 0 else None
        self._norm = _norm_before_ffn(block) if step.parallel_ffn else None
        self._passage = Passage(torch.empty(0, 0))
        self._input = torch.empty(0)

    def stand_in(self) -> list[Callable[[], None]]:
        """Takes the places of the block's functions; calling what it gives undoes that."""
        self._run, self._attend = self._block.forward, self._attention.forward
        undo = [stand_in(self._block, self.block), stand_in(self._attention, self.attention)]
        step = self.step
        for module in self._ffn if step.skip_ffn else ():
            fed = self._sparing(module, step.skip_block, step.skip_block | step.skip_ffn)
            undo.append(stand_in(module, fed))
        if self._asks is not None:  # of pictures' tokens no query is looked at
            gone = step.skip_block | step.skip_attention
            undo.append(stand_in(self._asks, self._sparing(self._asks, gone, gone | PICTURES)))
        if self._norm is not None:
            forward = self._norm.forward
            undo.append(
                stand_in(self._norm, lambda hidden: forward(self._input.reshape(hidden.shape)))
            )
        return undo

    def block(self, hidden_states: Tensor, passage: Passage, **called: Any) -> Tensor:
        """The block on the tokens that it computes."""
        live = passage.subset(self.step.skip_block)
        made = hidden_states
        if live.count:
            self._passage, self._input, passage.here = passage, live.take(hidden_states), live
            made = self._run(self._input, **live.taken(called))
            made = live.put(hidden_states, made[0] if isinstance(made, tuple) else made)
            self._input = torch.empty(0)
        if self.beside:
            made = made + passage.aside[self.index - 1]
        if self.beside == "mean":
            made = hidden_states + (made - hidden_states) / 2
        if self.step.parallel_next:
            passage.aside[self.index] = made - hidden_states
            return hidden_states
        return made

    def attention(self, hidden_states: Tensor, attention_mask: Tensor, **called: Any) -> Any:
        """Attention of the tokens that it computes; nothing for the others."""
        passage, step = self._passage, self.step
        live = passage.subset(step.skip_block | step.skip_attention)
        some = live.within(passage.subset(step.skip_block))
        nothing = torch.zeros_like(hidden_states)
        if not some.count:
            return nothing, None
        rule, causal = attention.rule_of(attention_mask)
        view = passage.view(
            self.index, live, called.get("past_key_values"), rule, causal, step.window
        )
        before, passage.here = passage.here, live
        made = self._attend(
            hidden_states=some.take(hidden_states),
            attention_mask=attention.seen_by(view),
            **some.taken(called),
        )[0]
        passage.here = before
        return some.put(nothing, made), None

    def _sparing(
        self, module: nn.Module, given: Kinds, skipped: Kinds
    ) -> Callable[[Tensor], Tensor]:
        """A module that is called with all tokens but `given` ones, on those alone that are not
        `skipped` either; zeros for the others."""
        forward = module.forward

        def spared(hidden: Tensor) -> Tensor:
            outer, live = self._passage.subset(given), self._passage.subset(skipped)
            some, rows = live.within(outer), hidden.reshape(len(outer.at), outer.count, -1)
            width = getattr(module, "out_features", hidden.shape[-1])  # a matrix, adapted or not
            nothing = rows.new_zeros(*rows.shape[:2], width)
            if some.count:
                before, self._passage.here = self._passage.here, live
                nothing = some.put(nothing, forward(some.take(rows)))
                self._passage.here = before
            return nothing.reshape(*hidden.shape[:-1], width)

        return spared


def halves(stages: Sequence[Mapping[str, str]]) -> tuple[str, tuple[str, ...]]:
    """Where a block has its attention and its FFN, which may be several modules in a row."""
    paths = [path.split(".")[0] for stage in stages for path in stage.values()]
    return paths[0], tuple(dict.fromkeys(path for path in paths if path != paths[0]))


def _norm_before_ffn(block: Any) -> nn.Module:
    named = dict(block.named_children())
    found = next((named[name] for name in NORMS if name in named), None)
    if found is None or not getattr(block, "do_layer_norm_before", True):
        raise ModelError(
            f"{type(block).__name__} has no norm before its FFN ({', '.join(NORMS)} were looked "
            f"for), so the FFN cannot read what attention reads. Leave out "
            f"[parallel_ffn_attention]."
        )
    return found
