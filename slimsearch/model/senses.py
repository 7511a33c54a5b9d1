"""A checkpoint's own processor: what makes pictures and text into what the model is given.

Several processors ask for torchvision, for videos or for a twin of what Pillow does as well. Only
pictures are shown here, so where it is not installed they are made without.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from slimsearch.model.checkpoint import Checkpoint

NAMING = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
PIXTRAL = "PixtralProcessor"


def processor(checkpoint: Checkpoint) -> Any:
    """The processor of a model folder."""
    from transformers import AutoProcessor
    from transformers.utils.import_utils import is_torchvision_available

    options = {"trust_remote_code": False, "local_files_only": True}
    name = "" if is_torchvision_available() else _name(checkpoint)
    if name == PIXTRAL:
        return pixtral().from_pretrained(checkpoint.folder, **options)
    kind = _kind(name)
    if kind is None or "video_processor" not in kind.get_attributes():
        return AutoProcessor.from_pretrained(checkpoint.folder, **options)
    return without_videos(kind).from_pretrained(checkpoint.folder, video_processor=None, **options)


def without_videos(kind: Any) -> Any:
    """A class of processors like this one that needs nothing for videos."""

    class Pictures(kind):
        video_processor = SimpleNamespace(num_frames=0, fps=0)  # what chat templates ask it for

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

    Pictures.__name__ = Pictures.__qualname__ = kind.__name__
    return Pictures


def pixtral() -> Any:
    """PixtralProcessor: of the module that wants torchvision it takes one function, which the
    module for Pillow has too."""
    from importlib import import_module

    package = "transformers.models.pixtral"
    wanted = f"{package}.image_processing_pixtral"
    before = sys.modules.get(wanted)
    sys.modules[wanted] = import_module(f"{package}.image_processing_pil_pixtral")
    try:
        return import_module(f"{package}.processing_pixtral").PixtralProcessor
    finally:
        del sys.modules[wanted]
        if before is not None:
            sys.modules[wanted] = before


def _name(checkpoint: Checkpoint) -> str:
    """What the folder calls its processor, or what transformers has for this model_type."""
    from transformers.models.auto import processing_auto

    known: Any = processing_auto
    for file in (checkpoint.folder / name for name in NAMING):
        if file.is_file() and (found := _read(file).get("processor_class")):
            return found
    return known.PROCESSOR_MAPPING_NAMES.get(checkpoint.model_type) or ""


def _read(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text("utf-8"))
    return found if isinstance(found, dict) else {}


def _kind(name: str) -> Any:
    import transformers

    return getattr(transformers, name, None) if name else None
