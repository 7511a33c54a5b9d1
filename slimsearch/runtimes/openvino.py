"""OpenVINO on the CPU, in the precision that the export says."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from numpy import ndarray

from slimsearch import artefact
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import ModelError, ResourceError
from slimsearch.graphs import forms, outside
from slimsearch.graphs.session import LOGITS, PAST, PRESENT, Engine, GraphSession
from slimsearch.model.checkpoint import RECORD
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
        dtype = str(found.recorded(form).get("dtype", "float32"))
        if dtype not in HINTS:
            raise ModelError(
                f"{folder / RECORD} has OpenVINO calculate in '{dtype}', and it does in "
                f"{' or '.join(HINTS)}. Export the model again."
            )
        names = forms.names(found.sees)
        files = {name: _file(folder, form, name) for name in names}
        found.check(form)
        chosen: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[dtype]}
        if threads:
            chosen["INFERENCE_NUM_THREADS"] = threads
        core = import_openvino().Core()
        engines = {name: _engine(_compiled(core, file, chosen)) for name, file in files.items()}
        return GraphSession(engines, found.room)


def _engine(compiled: Any) -> Engine:
    def run(given: Mapping[str, ndarray]) -> list[ndarray]:
        found = compiled(given)
        return [found[place] for place in range(len(found))]

    return Engine(
        run,
        outputs=[_outer_name(port) for port in compiled.outputs],
        pasts={
            port.any_name: (port.partial_shape[1].get_length(), port.partial_shape[3].get_length())
            for port in compiled.inputs
            if port.any_name.startswith(PAST)
        },
    )


def _outer_name(port: Any) -> str:
    """An output's name outside; OpenVINO keeps names from within the graph beside it."""
    outer = (name for name in port.names if name == LOGITS or name.startswith(PRESENT))
    return next(outer, port.any_name)


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
