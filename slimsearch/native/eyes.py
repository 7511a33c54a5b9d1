"""The picture side of a native export, in torch: vision tower and projector without a decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from slimsearch.errors import ModelError
from slimsearch.model import loading
from slimsearch.model.sight import Sight
from slimsearch.native import form
from slimsearch.native.form import Held
from slimsearch.routes.route import Merge


class Eyes:
    """Checked by the caller to be of a model that sees; calculates in fp32. `merge` has pictures'
    tokens merged, and those that are merged away come as zeros."""

    def __init__(self, held: Held, merge: Merge | None = None):
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
        sight = Sight(self._model.model, architecture)
        sight.follow(merge)
        parts = nn.ModuleList([sight.tower, *sight.projectors.values()])
        needed = {id(weight) for weight in parts.parameters()}
        missing = sorted(
            name
            for name, weight in self._model.named_parameters()
            if id(weight) in needed and name in info["missing_keys"]
        )
        if missing:
            raise ModelError(
                f"{held.folder / form.OTHERS} lacks the tensor {missing[0]}. {form.AGAIN}"
            )
        self._model.eval().requires_grad_(False)

    @torch.no_grad()
    def see(self, pixels: ndarray) -> ndarray:
        """Pictures [n, channels, height, width] -> what stands for them [n, tokens, width]."""
        shown = torch.from_numpy(np.ascontiguousarray(pixels)).float()
        found = self._model.model.get_image_features(pixel_values=shown, return_dict=True)
        return torch.stack(list(found.pooler_output)).numpy()
