"""OpenVINO on the CPU, in the precision that the export says."""

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
from slimsearch.privacy import import_openvino

HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino(Runtime):
    forms: ClassVar = ("openvino", "onnx")

    def absent(self) -> str | None:
        if find_spec("openvino"):
            return None
        return "OpenVINO is not installed: pip install 'slimsearch[openvino]'."

    def open(self, folder: Path, threads: int = 0) -> Session:
        found = artefact.find(folder)
        form = next((form for form in self.forms if found.holds(form)), None)
        if form is None:
            raise ModelError(
                f"{folder} holds nothing for OpenVINO. Write it with --to openvino too (or --to "
                f"onnx, which it reads as well), or choose another --runtime."
            )
        names = forms.names(found.sees)
        files = {name: _file(folder, form, name) for name in names}
        chosen: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[found.recorded(form).get("dtype", "float32")]
        }
        if threads:
            chosen["INFERENCE_NUM_THREADS"] = threads
        core = import_openvino().Core()
        engines = {name: _compiled(core, file, chosen) for name, file in files.items()}
        return _OpenVinoSession(engines, found.room)


class _OpenVinoSession(Session):
    def __init__(self, engines: dict[str, Any], room: int):
        self._embed, self._decoder = engines[forms.EMBEDDING], engines[forms.DECODER]
        self._vision = engines.get(forms.VISION)
        self.room = room
        self._pasts = {
            port.any_name: (port.partial_shape[1].get_length(), port.partial_shape[3].get_length())
            for port in self._decoder.inputs
            if port.any_name.startswith("past_key_values.")
        }
        self._made = [_outer_name(port.names) for port in self._decoder.outputs]
        self._cache: dict[str, ndarray] = {}

    def see(self, pixels: ndarray) -> ndarray:
        if self._vision is None:
            raise InputError("This model reads text only; leave out the picture.")
        return self._vision({"pixel_values": pixels})[0]

    def embed(self, ids: ndarray) -> ndarray:
        return self._embed({"input_ids": ids})[0]

    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        cache = self._cache or {
            name: np.zeros((len(embeds), heads, 0, width), np.float32)
            for name, (heads, width) in self._pasts.items()
        }
        given = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}
        found = self._decoder(given | cache)
        made = {name: found[place] for place, name in enumerate(self._made)}
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


def _outer_name(names: set[str]) -> str:
    """An output's name outside; OpenVINO keeps names from within the graph beside it."""
    return next(name for name in names if name == "logits" or name.startswith("present."))


def _file(folder: Path, form: str, name: str) -> Path:
    if form == "onnx":
        file = artefact.part(folder, form, f"{name}.onnx")
        outside.check(file)
        return file
    artefact.part(folder, form, f"{name}.bin")
    return artefact.part(folder, form, f"{name}.xml")


def _compiled(core: Any, file: Path, chosen: dict[str, Any]) -> Any:
    try:
        return core.compile_model(core.read_model(file), "CPU", chosen)
    except MemoryError as error:
        raise ResourceError(f"{file} does not fit into memory ({error}).") from error
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO refuses {file} ({str(error).strip().splitlines()[-1]}). Export it again."
        ) from error
