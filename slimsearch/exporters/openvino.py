"""OpenVINO's own form, converted from the same graphs as ONNX: openvino/*.xml and *.bin.

int8 is of the decoder's weights alone, a scale for each row, widened where they are multiplied.
Activations in int8 would need nncf's calibration and stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slimsearch.contracts import Exporter
from slimsearch.errors import SettingsError, did_you_mean
from slimsearch.graphs import anatomy, forms
from slimsearch.graphs.int8 import stored
from slimsearch.graphs.linear import dense
from slimsearch.model.vlm import VLM
from slimsearch.privacy import import_openvino
from slimsearch.routes.route import Route

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class OpenVino(Exporter):
    int8: bool = False
    dtype: str = ""  # what it calculates in, float32 unless told; weights stay fp32

    def __post_init__(self) -> None:
        if not find_spec("openvino"):
            raise SettingsError(
                "--to openvino needs OpenVINO, which is not installed: pip install "
                "'slimsearch[openvino]'. The other forms do without it."
            )
        if self.dtype and self.dtype not in DTYPES:
            raise SettingsError(
                f"dtype '{self.dtype}' cannot be.{did_you_mean(self.dtype, DTYPES)}"
            )

    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]:
        openvino = import_openvino()
        core, made = openvino.Core(), folder / "openvino"
        made.mkdir()
        with TemporaryDirectory(dir=folder) as place:
            graphs = Path(place) / "onnx"
            forms.write(vlm, graphs, stored if self.int8 else dense)
            for file in sorted(graphs.glob("*.onnx")):
                model = core.read_model(file)
                try:
                    openvino.save_model(model, made / f"{file.stem}.xml", compress_to_fp16=False)
                except RuntimeError as error:  # its kind for a full disk too
                    raise OSError(str(error)) from error
        dtype = self.dtype or DTYPES[0]
        kind = "int8 weights" if self.int8 else "fp32 weights"
        return {
            "about": f"OpenVINO runs openvino/ ({kind}), calculating in {dtype}.",
            "int8": self.int8,
            "dtype": dtype,
        }

    def unsaid(self, route: Route) -> str:
        return anatomy.unsaid(route)
