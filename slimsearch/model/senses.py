"""A checkpoint's own processor: what makes pictures and text into what the model is given.

Several processors ask for torchvision, for videos or for a twin of what Pillow does as well. Only
pictures are shown here, so where it is not installed they are made without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from slimsearch.calibration.pictures import MOST_PIXELS
from slimsearch.errors import ModelError
from slimsearch.model.checkpoint import Checkpoint

NAMING = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
PIXTRAL = "PixtralProcessor"
EDGES = {"height", "width", "shortest_edge", "longest_edge", "max_height", "max_width"}
COUNTED = "merge_size"  # whose image processor has it counts pixels in `size`, not edges
MOST_TILES = 4096


def processor(checkpoint: Checkpoint) -> Any:
    """The processor of a model folder."""
    found = _opened(checkpoint)
    if (images := getattr(found, "image_processor", None)) is not None:
        _check_sizes(checkpoint, images.to_dict())
    return found


def _opened(checkpoint: Checkpoint) -> Any:
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


def _check_sizes(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> None:
    """Refuses a processor that would make of every picture more than memory holds."""
    for key, edge in _edges(facts):
        pixels = edge if COUNTED in facts and key.startswith("size.") else edge**2
        if pixels > MOST_PIXELS:
            raise _oversized(
                checkpoint, f"{key} = {edge}: pictures of {pixels:,} pixels, "
                f"and {MOST_PIXELS:,} are the most",
            )  # fmt: skip
    for key in ("max_patches", "max_num_tiles", "max_image_tiles"):
        if isinstance(tiles := facts.get(key), int) and tiles > MOST_TILES:
            raise _oversized(checkpoint, f"{key} = {tiles}, and {MOST_TILES} tiles are the most")


def _edges(facts: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The numbers by which pictures are scaled, cut and filled up, each by its key."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            inner = [(f"{key}.{name}", number) for name, number in value.items() if name in EDGES]
        elif key == "image_grid_pinpoints" and isinstance(value, list | tuple):
            inner = [
                (key, edge) for pair in value if isinstance(pair, list | tuple) for edge in pair
            ]
        else:
            inner = []
        yield from ((name, number) for name, number in inner if isinstance(number, int))


def _oversized(checkpoint: Checkpoint, found: str) -> ModelError:
    return ModelError(
        f"{checkpoint.folder}: its processor (preprocessor_config.json, processor_config.json) "
        f"asks for {found}. Copy both files from the original model."
    )


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
