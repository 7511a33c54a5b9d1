"""Graphs of fixed shapes for DeepSparse: prompts of several lengths, one decoding step, a cache.

DeepSparse compiles a graph for its shapes. So there is one graph for each of a ladder of prompt
lengths, filled up on the left, and one that reads a single token over a cache of `room` places.
All stand over one file of weights. The picture side and the embeddings are run by ONNX Runtime.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimsearch.contracts import Exporter
from slimsearch.graphs import anatomy, decoder, forms
from slimsearch.graphs.int8 import Int8
from slimsearch.graphs.linear import dense
from slimsearch.graphs.sheet import write_together
from slimsearch.guest import LICENCE
from slimsearch.model.vlm import VLM

MOST_ROOM = 2048  # tokens a cache holds unless another number is asked for
LADDER = (32, 64, 128, 192, 256, 384, 512, 640, 768, 1024, 1536, 2048)


@dataclass(frozen=True)
class DeepSparse(Exporter):
    int8: bool = False
    room: int = 0

    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]:
        parts = anatomy.read(vlm)
        room = min(self.room or MOST_ROOM, parts.positions)
        own = folder / "deepsparse"
        own.mkdir()
        prompts = [length for length in LADDER if length < room] + [room]
        shapes = {f"prefill_{length}": decoder.Fixed(length, past=0) for length in prompts}
        shapes["decode"] = decoder.Fixed(tokens=1, past=room)
        write_together(
            {
                own / f"{name}.onnx": decoder.build(parts, fixed, Int8() if self.int8 else dense)
                for name, fixed in shapes.items()
            },
            own / "weights.bin",
        )
        forms.write_senses(vlm, parts, own)
        return {
            "about": f"DeepSparse runs deepsparse/, in {'int8' if self.int8 else 'fp32'}, pictures "
            f"and embeddings ONNX Runtime. {LICENCE}",
            "note": LICENCE,
            "int8": self.int8,
            "room": room,
            "prompts": prompts,
            "blocks": len(parts.blocks),
            "windows": parts.windows,
            "cache": [1, parts.key_heads, room, parts.head_width],
        }
