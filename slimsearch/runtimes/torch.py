"""torch: the model as transformers runs it, in fp32 on a CPU."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import torch

from slimsearch import artefact
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import ModelError
from slimsearch.model import checkpoint, loading, placing
from slimsearch.model.resident import Resident
from slimsearch.native.unpack import unpack
from slimsearch.settings import Settings


@dataclass(frozen=True)
class Torch(Runtime):
    forms: ClassVar = ("hf", "native")
    dtype: str = ""  # float32 on a CPU, the model's own on a GPU
    device_map: str = ""
    max_memory: str = ""

    def absent(self) -> str | None:
        return None

    def open(self, folder: Path, threads: int = 0) -> Session:
        found = artefact.find(folder)
        if not any(found.holds(form) for form in self.forms):
            raise ModelError(
                f"{folder} holds no safetensors, which torch reads. Write it with --to hf too, or "
                f"choose another --runtime."
            )
        if threads:
            torch.set_num_threads(threads)
        here = "float32" if loading.pick_device("auto").type == "cpu" else "auto"
        chosen = Settings(
            dtype=self.dtype or here, device_map=self.device_map, max_memory=self.max_memory
        )
        if found.holds("hf"):
            return Resident(placing.load(found.checkpoint, chosen))
        with TemporaryDirectory() as place:
            unpack(found.native(), Path(place))
            return Resident(placing.load(checkpoint.find(place), chosen))
