"""ONNX Runtime on the CPU, in fp32."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from slimsearch import artefact
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import ModelError, ResourceError
from slimsearch.graphs import forms, outside, steps
from slimsearch.graphs.session import PAST, Engine, GraphSession


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
        steps.check(folder, found.recorded("onnx"))
        files = {
            name: artefact.part(folder, "onnx", f"{name}.onnx") for name in forms.names(found.sees)
        }
        found.check("onnx")
        engines = {name: _engine(graph_in_engine(file, threads)) for name, file in files.items()}
        return GraphSession(engines, found.room)


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


def _engine(session: Any) -> Engine:
    return Engine(
        run=lambda given: session.run(None, given),
        outputs=[one.name for one in session.get_outputs()],
        pasts={
            one.name: (one.shape[1], one.shape[3])
            for one in session.get_inputs()
            if one.name.startswith(PAST)
        },
    )
