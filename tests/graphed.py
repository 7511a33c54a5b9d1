"""A graph in ONNX Runtime, and the decoder that it was made from in torch."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch

from slimsearch.graphs import anatomy


def engine(file) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(str(file), full_check=True)
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def empty(parts: anatomy.Decoder, rows: int) -> dict[str, np.ndarray]:
    nothing = np.zeros((rows, parts.key_heads, 0, parts.head_width), np.float32)
    return {
        f"past_key_values.{index}.{kind}": nothing
        for index in range(len(parts.blocks))
        for kind in ("key", "value")
    }


def run(session, feeds: dict) -> dict[str, np.ndarray]:
    made = session.run(None, feeds)
    return {one.name: value for one, value in zip(session.get_outputs(), made, strict=True)}


def cached(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.replace("present", "past_key_values"): value
        for name, value in found.items()
        if name != "logits"
    }


@torch.no_grad()
def reference(vlm, ids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and logits of every token, as torch has them."""
    embeds = vlm.model.get_input_embeddings()(ids)
    hidden = vlm.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
    return embeds.float().numpy(), vlm.logits(hidden).float().numpy()


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max())
