"""A model in torch's memory as a session: the one that every other engine is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from slimsearch.contracts import Session
from slimsearch.errors import InputError
from slimsearch.model.sight import moved, placing_pictures, stacked
from slimsearch.model.vlm import VLM
from slimsearch.routes.kinds import PROMPT


class Resident(Session):
    def __init__(self, vlm: VLM):
        self._vlm = vlm
        self.forget()
        self.room = vlm.model.config.get_text_config().max_position_embeddings

    @torch.no_grad()
    def see(self, pixels: ndarray) -> ndarray:
        if not self._vlm.sees:
            raise InputError("This model reads text only; leave out the picture.")
        shown = torch.from_numpy(pixels).to(self._vlm.device, self._vlm.dtype)
        found = self._vlm.model.model.get_image_features(pixel_values=shown, return_dict=True)
        return _out(torch.stack(list(found.pooler_output)))

    @torch.no_grad()
    def embed(self, ids: ndarray) -> ndarray:
        return _out(self._vlm.model.get_input_embeddings()(self._in(ids)))

    def tell(self, kinds: ndarray) -> None:
        self._vlm.detours.tell(self._in(kinds))

    @torch.no_grad()
    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        return _out(self._vlm.logits(self._hidden(embeds, mask, positions)[:, -1]))

    @torch.no_grad()
    def step_all(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        return _out(self._vlm.logits(self._hidden(embeds, mask, positions)))

    @torch.no_grad()
    def read(
        self, ids: ndarray, mask: ndarray, positions: ndarray, pictures: Sequence[Mapping[str, Any]]
    ) -> ndarray:
        from transformers import DynamicCache

        self._cache = DynamicCache()
        base, tokens = self._vlm.model.model, self._in(ids)
        shown = moved(stacked(pictures), next(base.parameters()))
        grids = hasattr(base, "get_rope_index")  # positions in two dimensions are its own matter
        with placing_pictures(self._vlm.checkpoint.folder):
            output = base(
                input_ids=tokens,
                attention_mask=None if mask.all() else self._in(mask),
                position_ids=None if grids else self._in(positions),
                past_key_values=self._cache,
                use_cache=True,
                **shown,
                **self._vlm.marks(tokens, torch.full_like(tokens, PROMPT)),
            )
        self._shift = base.rope_deltas if grids else 0
        return _out(self._vlm.logits(output.last_hidden_state[:, -1]))

    def forget(self) -> None:
        self._cache = None
        self._shift: Tensor | int = 0  # of a token's position beyond its place among those read

    def _hidden(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> Tensor:
        """Hidden states of the tokens that are read, [rows, tokens, width]."""
        from transformers import DynamicCache

        self._cache = DynamicCache() if self._cache is None else self._cache
        return self._vlm.decoder(
            inputs_embeds=self._in(embeds).to(self._vlm.dtype),
            attention_mask=None if mask.all() else self._in(mask),
            position_ids=self._in(positions) + self._shift,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state

    def _in(self, array: ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._vlm.device)


def _out(tensor: Tensor) -> ndarray:
    return tensor.float().cpu().numpy()
