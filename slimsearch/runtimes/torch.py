"""torch: the model as transformers runs it, in fp32 on a CPU."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import torch

from slimsearch import artefact, checkpoint, loading
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import ModelError
from slimsearch.native.unpack import unpack
from slimsearch.resident import Resident


@dataclass(frozen=True)
class Torch(Runtime):
    forms: ClassVar = ("hf", "native")
    dtype: str = ""  # float32 on a CPU, the model's own on a GPU

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
        dtype = self.dtype or here
        if found.holds("hf"):
            return Resident(loading.load(found.checkpoint, "auto", dtype))
        with TemporaryDirectory() as place:
            unpack(found.native(), Path(place))
            return Resident(loading.load(checkpoint.find(place), "auto", dtype))
