"""The picture side of a native export, in torch: vision tower and projector without a decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from slimsearch import loading
from slimsearch.errors import ModelError
from slimsearch.native import form
from slimsearch.native.form import Held


class Eyes:
    """Checked by the caller to be of a model that sees; calculates in fp32."""

    def __init__(self, held: Held):
        from transformers import AutoModelForImageTextToText, GenerationConfig

        held.open(form.OTHERS)
        architecture = loading.architecture_of(held.checkpoint)
        config: Any = loading.config_of(held.checkpoint)
        text = config.get_text_config()
        text.num_hidden_layers, text.vocab_size, text.pad_token_id = 0, 1, None
        with loading.quiet_transformers(), loading.refused(held.checkpoint):
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                held.folder, config=config, dtype=torch.float32, use_safetensors=True,
                output_loading_info=True, trust_remote_code=False, local_files_only=True,
                generation_config=GenerationConfig(),
            )  # fmt: skip
        self._model, info = loaded
        assert architecture.vision is not None and architecture.projector is not None  # noqa: PT018
        needed = (f"{architecture.vision}.", f"{architecture.projector}.")
        missing = sorted(key for key in info["missing_keys"] if key.startswith(needed))
        if missing:
            raise ModelError(
                f"{held.folder / form.OTHERS} lacks the tensor {missing[0]}. {form.AGAIN}"
            )
        self._model.eval().requires_grad_(False)
        self._projector = self._model.get_submodule(architecture.projector)

    @torch.no_grad()
    def see(self, pixels: ndarray) -> ndarray:
        """Pictures [n, channels, height, width] -> what stands for them [n, tokens, width]."""
        seen: list[Tensor] = []
        hook = self._projector.register_forward_hook(lambda *told: seen.append(told[-1]))
        try:
            shown = torch.from_numpy(np.ascontiguousarray(pixels)).float()
            self._model.model.get_image_features(pixel_values=shown)
        finally:
            hook.remove()
        return seen[0].numpy()
