"""Graphs of fixed shapes for DeepSparse: prompts of several lengths, one decoding step, a cache.

DeepSparse compiles a graph for its shapes. So there is one graph for each of a ladder of prompt
lengths, filled up on the left, and one that reads a single token over a cache of `room` places.
All stand over one file of weights. The picture side and the embeddings are run by ONNX Runtime.
Of odd sizes one block is compiled first, where DeepSparse is at hand: it dies of a few.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slimsearch.contracts import Exporter
from slimsearch.errors import EngineError, ModelError
from slimsearch.graphs import anatomy, decoder, forms, steps
from slimsearch.graphs.int8 import Int8, patchy
from slimsearch.graphs.linear import Linear, dense
from slimsearch.graphs.sheet import write_together
from slimsearch.guest import LICENCE, host
from slimsearch.model.vlm import VLM
from slimsearch.routes.route import Route

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
        spared = self._spared(parts)
        if _odd(parts) and not host.missing():
            self._try_out(vlm, parts, shapes.values(), spared)
        write_together(
            {
                own / f"{name}.onnx": decoder.build(parts, fixed, self._linear(spared))
                for name, fixed in shapes.items()
            },
            own / "weights.bin",
        )
        forms.write_senses(vlm, parts, own)
        return {
            "about": f"DeepSparse runs deepsparse/, in {'int8' if self.int8 else 'fp32'}, pictures "
            f"and embeddings ONNX Runtime. {LICENCE}",
            "note": LICENCE + _told(spared),
            "int8": self.int8,
            "steps": steps.here(),
            "fp32": spared,
            "room": room,
            "prompts": prompts,
            "blocks": len(parts.blocks),
            "windows": parts.windows,
            "cache": [1, parts.key_heads, room, parts.head_width],
        }

    def unsaid(self, route: Route) -> str:
        return anatomy.unsaid(route)

    def _spared(self, parts: anatomy.Decoder) -> list[str]:
        """The matrices that int8 leaves in fp32, lest DeepSparse make wrong numbers of them."""
        matrices = parts.matrices if self.int8 else []
        return [matrix.name for matrix in matrices if patchy(decoder.filled(matrix))]

    def _linear(self, spared: Collection[str]) -> Linear:
        return Int8(spared) if self.int8 else dense

    def _try_out(
        self,
        vlm: VLM,
        parts: anatomy.Decoder,
        shapes: Iterable[decoder.Fixed],
        spared: Collection[str],
    ) -> None:
        """Refuses a decoder of which DeepSparse cannot compile a single block."""
        block = replace(parts, blocks=parts.blocks[:1])
        with TemporaryDirectory() as place, host.Guest() as guest:
            file = Path(place) / "block.onnx"
            for fixed in shapes:
                decoder.build(block, fixed, self._linear(spared)).write(file)
                try:
                    guest.compile("block", file)
                    guest.drop("block")
                except EngineError as error:
                    raise ModelError(
                        f"{vlm.checkpoint.folder} is nothing for DeepSparse, which was given one "
                        f"block of it to read {fixed.tokens} tokens (width {parts.width}, heads "
                        f"{parts.head_width} wide) and could not: {error} --to onnx works."
                    ) from error


def _told(spared: Collection[str]) -> str:
    if not spared:
        return ""
    first, *others = spared
    return (
        f" Left in fp32: {first}{f' and {len(others)} more' if others else ''}, since zeros lie "
        f"in patches there, of which its int8 makes wrong numbers."
    )


def _odd(parts: anatomy.Decoder) -> bool:
    """Whether sizes are such that DeepSparse has died of some, by no rule that was found."""
    inner = {block.down.weight.shape[1] for block in parts.blocks}
    return bool(parts.head_width % 8 or parts.width % 16 or any(size % 16 for size in inner))
