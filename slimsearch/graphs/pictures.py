"""The vision side as a graph: pictures in, what stands for them in the decoder out.

Vision towers differ, so torch traces this one. Its weights stay outside the trace, as inputs, and
are streamed into the file like the decoder's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimsearch.errors import ModelError
from slimsearch.graphs.sheet import OPSET, Promise, Sheet
from slimsearch.model.vlm import VLM


def build(vlm: VLM) -> Sheet:
    """pixel_values [pictures, 3, height, width] -> image_features [pictures, tokens, width]."""
    if not vlm.architecture.plain:
        raise ModelError(
            f"{vlm.checkpoint.folder} is a '{vlm.checkpoint.model_type}': its pictures are more "
            f"than pixels of one size, and no graph is written of that. --to hf works."
        )
    sheet = Sheet("vision_encoder")
    config = vlm.model.config.vision_config
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.zeros(2, config.num_channels, height, width)
    seer = _Seer(vlm)
    with _widened(vlm, seer), _quiet(), TemporaryDirectory() as place:
        graph = _traced(sheet.onnx, seer, pixels, Path(place, "traced.onnx"))
        weights: dict[str, Tensor] = dict(seer.state_dict(keep_vars=True))
        kept = [value for value in graph.input if value.name not in weights]
        used = [value.name for value in graph.input if value.name in weights]
        turned = _turn_weights(graph, set(used))
    del graph.input[:]
    graph.input.extend(kept)
    sheet.take(graph, [_promise(name, weights[name], name in turned) for name in used])
    return sheet


class _Seer(nn.Module):
    """Vision tower and projector as one module."""

    def __init__(self, vlm: VLM):
        super().__init__()
        assert vlm.sight is not None
        self.tower: Any = vlm.sight.tower
        (self.projector,) = vlm.sight.projectors.values()
        self._whole = [vlm.model.model]  # in a list, so that it is no submodule of this one

    def forward(self, pixel_values: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = self.projector.register_forward_hook(lambda *told: seen.append(told[-1]))
        try:
            self._whole[0].get_image_features(pixel_values=pixel_values)
        finally:
            hook.remove()
        return seen[0]


@contextmanager
def _widened(vlm: VLM, seer: _Seer) -> Iterator[None]:
    """Tower and projector in fp32 with attention spelled out, and as they were afterwards."""
    config = seer.tower.config
    before = config._attn_implementation
    config._attn_implementation = "eager"
    seer.float()
    try:
        yield
    finally:
        seer.to(vlm.dtype)
        config._attn_implementation = before


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracer warns that it is old and that lengths become constants; both are meant so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _traced(onnx: Any, seer: _Seer, pixels: Tensor, file: Path) -> Any:
    """The graph of one look, weights as inputs under their names in the module."""
    try:
        torch.onnx.export(
            seer,
            (pixels,),
            file,
            dynamo=False,
            opset_version=OPSET,
            export_params=False,
            do_constant_folding=False,
            input_names=["pixel_values"],
            output_names=["image_features"],
            dynamic_axes={"pixel_values": {0: "pictures"}, "image_features": {0: "pictures"}},
        )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"The vision tower {type(seer.tower).__name__} cannot be traced: {reason}. --to hf "
            f"works for every model."
        ) from error
    return onnx.load(str(file)).graph


def _turn_weights(graph: Any, weights: set[str]) -> set[str]:
    """Drops the transposes of weights; returns the names of those to be written transposed."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    turned: set[str] = set()
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        given = node.input[0] if node.input else ""
        alone = node.op_type == "Transpose" and given in weights and len(readers[given]) == 1
        if alone and list(node.attribute[0].ints) == [1, 0]:
            turned.add(given)
            renamed[node.output[0]] = given
        else:
            kept.append(node)
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    del graph.node[:]
    graph.node.extend(kept)
    return turned


def _promise(name: str, tensor: Tensor, turned: bool) -> Promise:
    if not tensor.is_floating_point():
        dtype = tensor.detach().numpy().dtype
        return Promise(name, dtype, tuple(tensor.shape), lambda: tensor)
    held = tensor.detach().t() if turned else tensor.detach()
    return Promise(name, np.dtype(np.float32), tuple(held.shape), lambda: held)
