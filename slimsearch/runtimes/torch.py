"""Runs a model folder with torch: one picture, one question, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from slimsearch import checkpoint, conversation, loading
from slimsearch.calibration import Pair, Turn
from slimsearch.calibration.pictures import load_picture
from slimsearch.contracts import Runtime, Session
from slimsearch.conversation import Speech
from slimsearch.errors import InputError
from slimsearch.vlm import VLM, Batch


class Torch(Runtime):
    def open(self, folder: Path) -> Session:
        found = checkpoint.find(str(folder))
        model = loading.load(found, "auto", "auto")
        return _TorchSession(model, conversation.load(found, model.projector is not None))


class _TorchSession(Session):
    def __init__(self, model: VLM, speech: Speech):
        self._model, self._speech = model, speech
        self._cache = None

    @torch.no_grad()
    def prefill(self, question: str, picture: Path | None) -> Tensor:
        from transformers import DynamicCache

        self._cache = DynamicCache()
        if picture is None:
            ids, features = self._speech.tokens(question), None
        else:
            features = self._see(picture)
            ids = conversation.question_ids(
                self._speech, [Turn(question, None)], self._model.picture_token, features.shape[1]
            )
        tokens = torch.tensor([ids], device=self._model.device)
        empty = torch.zeros_like(tokens)
        return self._step(self._model.embed(Batch(tokens, empty, empty, empty, features)))

    @torch.no_grad()
    def decode(self, token: int) -> Tensor:
        tokens = torch.tensor([[token]], device=self._model.device)
        return self._step(self._model.model.get_input_embeddings()(tokens))

    def text(self, tokens: Sequence[int]) -> str:
        return self._speech.tokenizer.decode(tokens, skip_special_tokens=True)

    @property
    def end(self) -> frozenset[int]:
        found = self._speech.tokenizer.eos_token_id
        return frozenset() if found is None else frozenset({found})

    def _see(self, picture: Path) -> Tensor:
        if self._model.projector is None:
            raise InputError(f"This model reads text only; leave out --image {picture}.")
        shown = load_picture(picture, "--image")
        pair = Pair(str(picture), shown, (Turn("", None),))
        return self._model.see(conversation.pixels(self._speech, pair))

    def _step(self, embeds: Tensor) -> Tensor:
        """Feeds tokens behind the cache; logits of the last, [vocabulary]."""
        output = self._model.decoder(
            inputs_embeds=embeds, past_key_values=self._cache, use_cache=True
        )
        return self._model.logits(output.last_hidden_state[0, -1:])[0]
