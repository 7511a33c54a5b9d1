"""A model in torch's memory as a session: the one that every other engine is compared with."""

from __future__ import annotations

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from slimsearch.contracts import Session
from slimsearch.errors import InputError
from slimsearch.vlm import VLM


class Resident(Session):
    def __init__(self, vlm: VLM):
        self._vlm = vlm
        self._cache = None
        self.room = vlm.model.config.get_text_config().max_position_embeddings

    @torch.no_grad()
    def see(self, pixels: ndarray) -> ndarray:
        if self._vlm.projector is None:
            raise InputError("This model reads text only; leave out the picture.")
        return _out(self._vlm.projector(self._vlm.see(torch.from_numpy(pixels))))

    @torch.no_grad()
    def embed(self, ids: ndarray) -> ndarray:
        return _out(self._vlm.model.get_input_embeddings()(self._in(ids)))

    @torch.no_grad()
    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        from transformers import DynamicCache

        self._cache = self._cache or DynamicCache()
        output = self._vlm.decoder(
            inputs_embeds=self._in(embeds).to(self._vlm.dtype),
            attention_mask=None if mask.all() else self._in(mask),
            position_ids=self._in(positions),
            past_key_values=self._cache,
            use_cache=True,
        )
        return _out(self._vlm.logits(output.last_hidden_state[:, -1]))

    def forget(self) -> None:
        self._cache = None

    def _in(self, array: ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._vlm.device)


def _out(tensor: Tensor) -> ndarray:
    return tensor.float().cpu().numpy()
