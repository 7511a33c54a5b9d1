"""A model folder like the one it came from: same tensors, names and dtypes, zeros exact.

It loads with plain from_pretrained. No sparsity_config is written: engines refuse it. Blocks that
no token goes through are left out; how the others run, where that is not as ever, slimsearch.json
says.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimsearch.contracts import Exporter
from slimsearch.model.vlm import VLM
from slimsearch.surgery import thinning


class HuggingFace(Exporter):
    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]:
        thinning.write(vlm, folder, _changed(vlm) | thinning.zeros(vlm))
        if not thinning.alone(thinning.left(vlm)):
            return {"about": f"slimsearch runs this folder: {thinning.NOTE}", "note": thinning.NOTE}
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
