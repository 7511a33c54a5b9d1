"""The door to lmms-eval: its entry point `lmms_eval.models` finds our model here.

    lmms-eval --model slimsearch --model_args pretrained=exported,runtime=onnxruntime --tasks pope

Its libraries are imported only when it asks.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval's registry wants to know."""
    from lmms_eval.models.registry_v2 import (  # pyright: ignore[reportMissingImports]
        ModelManifest,
    )

    return ModelManifest("slimsearch", simple_class_path="slimsearch.harness.model.Slimsearch")
