"""deepsparse: kernels that skip zeros, in a guest process; pictures and embeddings by ONNX Runtime.

A prompt is read by the shortest graph that holds it, compiled when one first needs it, or a longer
one that is compiled already; every later token by the decode graph, compiled when the first one
comes. Keys and values stay in the guest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy import ndarray

from slimsearch import artefact
from slimsearch.artefact import Artefact
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import InputError, ModelError
from slimsearch.graphs import masks, outside, steps
from slimsearch.graphs.masks import Fixed
from slimsearch.guest import host
from slimsearch.guest.host import Compiled, Guest
from slimsearch.model.checkpoint import RECORD
from slimsearch.runtimes.onnxruntime import graph_in_engine

FORM = "deepsparse"
DECODE = "decode"


@dataclass(frozen=True)
class DeepSparse(Runtime):
    forms: ClassVar = (FORM,)
    deepsparse_python: str = ""

    def absent(self) -> str | None:
        reason = "" if self.deepsparse_python else host.missing()
        return f"DeepSparse cannot run here: {reason}" if reason else None

    def open(self, folder: Path, threads: int = 0) -> Session:
        found = artefact.find(folder)
        record = found.recorded(FORM)
        if not record or not found.holds(FORM):
            raise ModelError(
                f"{folder} holds no graphs for DeepSparse. Write them with --to deepsparse, or "
                f"choose another --runtime."
            )
        steps.check(folder, record)
        shapes = _shapes(folder, record)
        artefact.part(folder, FORM, "embed_tokens.onnx")
        outside.check(artefact.part(folder, FORM, f"{DECODE}.onnx"))  # before a word is said
        found.check(FORM)
        guest = Guest(self.deepsparse_python, threads)
        return DeepSparseSession(found, shapes, guest)


@dataclass(frozen=True)
class Shapes:
    """Of an export's graphs."""

    prompts: list[int]  # lengths that there are graphs for
    blocks: int
    cache: list[int]
    room: int
    windows: list[int | None]


class DeepSparseSession(Session):
    def __init__(self, found: Artefact, shapes: Shapes, guest: Guest):
        self.guest, self.process = guest, guest.process
        self._sees = found.sees
        self.compiled: dict[str, Compiled] = {}  # each graph that was needed, the latest of it
        self._folder = found.folder
        self._prompts = sorted(shapes.prompts)
        self._blocks, self._cache, self._windows = shapes.blocks, shapes.cache, shapes.windows
        self.room = shapes.room
        if self.room < found.room:
            self.wider = f"With --to deepsparse --room it holds up to {found.room}."
        self._prefill = 0  # the length of the one prompt graph that is in memory
        self._filled: list[int] = []  # places taken in the cache of each row
        self._beside: dict[str, Any] = {}  # what ONNX Runtime runs

    def see(self, pixels: ndarray) -> ndarray:
        if not self._sees:
            raise InputError("This model reads text only; leave out the picture.")
        return self._in_onnxruntime("vision_encoder", pixels)

    def embed(self, ids: ndarray) -> ndarray:
        return self._in_onnxruntime("embed_tokens", ids)

    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        if not self._filled:
            self._filled = [0] * len(embeds)
            self.guest.hold({
                name: self._cache for row in range(len(embeds)) for name in self._names(row)
            })  # fmt: skip
        real = mask[:, -embeds.shape[1] :] == 1
        found = [
            self._read(row, embeds[row, real[row]], positions[row, real[row]])
            for row in range(len(embeds))
        ]
        vocabulary = next(len(one) for one in found if one is not None)
        return np.stack([np.zeros(vocabulary, np.float32) if f is None else f for f in found])

    def forget(self) -> None:
        self._filled = []
        self.guest.release()

    def close(self) -> None:
        self.guest.close()

    def _read(self, row: int, embeds: ndarray, places: ndarray) -> ndarray | None:
        """Reads a row's real tokens [n, width]; the last one's logits, or None for no token."""
        if self._filled[row] + len(embeds) > self.room:
            raise InputError(
                f"{self._filled[row] + len(embeds)} tokens are more than the {self.room} that "
                f"this export holds. Shorten the prompt, or export it with a larger --room."
            )
        if not self._filled[row] and len(embeds):
            return self._read_prompt(row, embeds, places)
        logits = None
        for one, place in zip(embeds, places, strict=True):
            logits = self._read_token(row, one, place)
        return logits

    def _read_prompt(self, row: int, embeds: ndarray, places: ndarray) -> ndarray:
        count = len(embeds)
        length = self._ready_for(count)
        name = f"prefill_{length}"
        blank = length - count
        inputs = {
            "inputs_embeds": np.pad(embeds, ((blank, 0), (0, 0)))[None],
            "position_ids": np.pad(places, (blank, 0))[None],
            **masks.arrays(Fixed(length, 0), self._windows, blank),
        }
        return self._run(name, row, inputs, count)

    def _ready_for(self, count: int) -> int:
        """The length of a compiled prompt graph that holds so many tokens: the one at hand, for
        compiling takes longer than reading some padding, or else the shortest."""
        if self._prefill < count:
            if self._prefill:
                self.guest.drop(f"prefill_{self._prefill}")
            self._prefill = 0
            length = next(length for length in self._prompts if length >= count)
            self._compile(f"prefill_{length}")
            self._prefill = length
        return self._prefill

    def _read_token(self, row: int, embed: ndarray, place: int) -> ndarray:
        if DECODE not in self.compiled:
            self._compile(DECODE)
        inputs = {
            "inputs_embeds": embed[None, None],
            "position_ids": np.array([[place]]),
            **{
                masks.name_of(window): self._seen(self._filled[row], window)
                for window in self._windows
            },
        }
        held = [f"past_key_values.{n}.{kind}" for n in range(self._blocks) for kind in _KINDS]
        return self._run(DECODE, row, inputs | dict(zip(held, self._names(row), strict=True)), 1)

    def _seen(self, filled: int, window: int | None) -> ndarray:
        """The mask of a token behind so many others: the first places of the cache, and itself."""
        hidden = np.full(self.room + 1, masks.HIDDEN, np.float32)
        hidden[max(0, filled + 1 - window) if window else 0 : filled] = 0
        hidden[-1] = 0
        return hidden[None, None, None]

    def _run(self, name: str, row: int, inputs: Mapping[str, ndarray | str], count: int) -> ndarray:
        """One pass of a row; what `count` new tokens left for the cache goes behind the rest."""
        engine = self.compiled[name]
        kept = {
            f"present.{n}.{kind}": (held, self._filled[row], count)
            for (n, kind), held in zip(
                ((n, kind) for n in range(self._blocks) for kind in _KINDS),
                self._names(row),
                strict=True,
            )
        }
        (logits,) = self.guest.run(
            name, [inputs[one] for one in engine.inputs], [kept.get(one) for one in engine.outputs]
        )
        self._filled[row] += count
        return logits[0, 0]

    def _compile(self, name: str) -> None:
        file = artefact.part(self._folder, FORM, f"{name}.onnx")
        outside.check(file)
        self.compiled[name] = self.guest.compile(name, file)

    def _names(self, row: int) -> list[str]:
        """The held arrays of a row's cache, block by block, keys before values."""
        return [f"{row}.{n}.{kind}" for n in range(self._blocks) for kind in _KINDS]

    def _in_onnxruntime(self, name: str, given: ndarray) -> ndarray:
        if name not in self._beside:
            file = artefact.part(self._folder, FORM, f"{name}.onnx")
            self._beside[name] = graph_in_engine(file, self.guest.cores)
        engine = self._beside[name]
        return engine.run(None, {engine.get_inputs()[0].name: given})[0]


def _shapes(folder: Path, record: Mapping[str, Any]) -> Shapes:
    """What the exporter recorded of its graphs; refused where that is not what it writes."""
    names = [field.name for field in fields(Shapes)]
    told: dict[str, Any] = dict.fromkeys(names) | {"windows": [None]}  # older exports tell none
    told |= {name: record[name] for name in names if name in record}
    found = Shapes(**told)
    lists = [found.prompts, found.cache, found.windows]
    if (
        all(isinstance(one, list) and one for one in lists)
        and all(map(_count, (*found.prompts, *found.cache, found.blocks, found.room)))
        and all(window is None or _count(window) for window in found.windows)
        and found.cache[2:3] == [found.room]
        and max(found.prompts) >= found.room
    ):
        return found
    raise ModelError(
        f"{folder / RECORD} does not say how the graphs in {folder / FORM} are shaped "
        f"({', '.join(names)}). Restore it, or export the model again with --to deepsparse."
    )


def _count(value: object) -> bool:
    return type(value) is int and value > 0


_KINDS = ("key", "value")
