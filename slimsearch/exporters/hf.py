"""A model folder like the one it came from: same tensors, names and dtypes, zeros exact.

It loads with plain from_pretrained. No sparsity_config is written: engines refuse it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimsearch.contracts import Exporter
from slimsearch.vlm import VLM


class HuggingFace(Exporter):
    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]:
        vlm.checkpoint.copy_weights(folder, _changed(vlm))
        return {"about": "transformers loads this folder with from_pretrained."}


def _changed(vlm: VLM) -> dict[str, Tensor]:
    """Prunable matrices and tunable weights, where they are not what the disk holds."""
    places = [vlm.matrix_parameter(matrix.name) for matrix in vlm.matrices]
    places += vlm.tunable.values()
    weights = {vlm.disk_name(place): vlm.model.get_parameter(place) for place in places}
    return {
        key: weights[key]
        for key, stored in vlm.checkpoint.read(weights)
        if not torch.equal(stored.to(weights[key].dtype), weights[key].cpu())
    }
