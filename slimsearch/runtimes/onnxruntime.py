"""ONNX Runtime on the CPU, in fp32."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy import ndarray

from slimsearch import artefact
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import InputError, ModelError, ResourceError
from slimsearch.graphs import forms, outside


class OnnxRuntime(Runtime):
    forms: ClassVar = ("onnx",)

    def absent(self) -> str | None:
        if find_spec("onnxruntime") and find_spec("onnx"):
            return None
        return "ONNX Runtime is not installed: pip install 'slimsearch[onnx]'."

    def open(self, folder: Path, threads: int = 0) -> Session:
        found = artefact.find(folder)
        if not found.holds("onnx"):
            raise ModelError(
                f"{folder} holds no graphs for ONNX Runtime. Write it with --to onnx too, or "
                f"choose another --runtime."
            )
        files = {
            name: artefact.part(folder, "onnx", f"{name}.onnx") for name in forms.names(found.sees)
        }
        return _OnnxSession(
            {name: graph_in_engine(file, threads) for name, file in files.items()}, found.room
        )


def graph_in_engine(file: Path, threads: int) -> Any:
    """A checked graph in ONNX Runtime; `threads` = 0 leaves their number to it."""
    import onnxruntime

    outside.check(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    onnxruntime.disable_telemetry_events()
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except MemoryError as error:
        raise ResourceError(f"{file} does not fit into memory ({error}).") from error
    except Exception as error:  # its kinds live in a C extension
        raise ModelError(
            f"ONNX Runtime refuses {file} ({str(error).strip().splitlines()[0]}). Export it again."
        ) from error


class _OnnxSession(Session):
    def __init__(self, engines: dict[str, Any], room: int):
        self._embed, self._decoder = engines[forms.EMBEDDING], engines[forms.DECODER]
        self._vision = engines.get(forms.VISION)
        self.room = room
        self._made = [one.name for one in self._decoder.get_outputs()]
        self._pasts = {
            one.name: one.shape
            for one in self._decoder.get_inputs()
            if one.name.startswith("past_key_values.")
        }
        self._cache: dict[str, ndarray] = {}

    def see(self, pixels: ndarray) -> ndarray:
        if self._vision is None:
            raise InputError("This model reads text only; leave out the picture.")
        return self._vision.run(None, {"pixel_values": pixels})[0]

    def embed(self, ids: ndarray) -> ndarray:
        return self._embed.run(None, {"input_ids": ids})[0]

    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        cache = self._cache or {
            name: np.zeros((len(embeds), heads, 0, width), np.float32)
            for name, (_, heads, _, width) in self._pasts.items()
        }
        given = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}
        made = dict(zip(self._made, self._decoder.run(None, given | cache), strict=True))
        logits = made.pop("logits")
        self._cache = {
            name.replace("present", "past_key_values"): value for name, value in made.items()
        }
        return logits[:, -1]

    def forget(self) -> None:
        self._cache = {}

    def close(self) -> None:
        self._cache = {}
        del self._embed, self._decoder, self._vision
