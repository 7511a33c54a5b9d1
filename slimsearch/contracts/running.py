"""Sockets of engines: a form that a model is written in, and what runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from slimsearch.errors import InputError

if TYPE_CHECKING:
    from numpy import ndarray

    from slimsearch.model.vlm import VLM
    from slimsearch.routes.route import Route


class Exporter(ABC):
    """One form of a model. `fill` writes it into a folder that is being made: `artefact.write`
    makes that folder, copies what stands beside the weights (configuration, tokenizer, processor),
    writes slimsearch.json and the card, and renames it when everything is whole.

    Each form keeps to a folder of its own, named after the exporter (`hf` alone writes at the top),
    so that one export can hold several. What `fill` returns is recorded in slimsearch.json under
    `exports`. An exporter that has choices is a dataclass; `exporting.Choices` lists them all.
    """

    @abstractmethod
    def fill(self, vlm: VLM, folder: Path) -> dict[str, Any]: ...

    def unsaid(self, route: Route) -> str:
        """What of how blocks run the form cannot say, and what can; '' where it says everything.

        Asked before a model is pruned for it; `fill` refuses the same.
        """
        return ""


class Runtime(ABC):
    """An engine. `open(folder)` brings an export into it, ready for the first token."""

    forms: ClassVar[tuple[str, ...]]  # the exporters whose forms it reads, the best first

    @abstractmethod
    def absent(self) -> str | None:
        """Why the engine is not to be had here and what to do, in one line; None where it is."""

    @abstractmethod
    def open(self, folder: Path, threads: int = 0) -> Session:
        """`threads` = 0 leaves their number to the engine."""


class Session(ABC):
    """A model in an engine: pictures and tokens in, logits out, keys and values kept inside.

    Several rows are read side by side. Rows are padded on the left: `mask` is 1 where a token is
    real and 0 where it is padding, over everything that was read since `forget`; `positions` count
    the real tokens of a row from 0. `decoding.greedy` is the loop around it. Arrays are fp32 or
    int64 and lie in host memory.
    """

    room: int  # tokens, read and said, that a row can hold
    wider: str = ""  # how more room is had, where it can be
    process: int | None = None  # the engine's own, where it has one

    @abstractmethod
    def see(self, pixels: ndarray) -> ndarray:
        """Pictures [n, channels, height, width] -> what stands for them [n, tokens, width]."""

    @abstractmethod
    def embed(self, ids: ndarray) -> ndarray:
        """[rows, tokens] -> [rows, tokens, width]."""

    def tell(self, kinds: ndarray) -> None:
        """Of which class each token is that is read next, [rows, tokens] as batch has them; for
        an engine that treats them differently."""
        return None

    @abstractmethod
    def step(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        """Reads [rows, tokens, width] behind what was read before; the last token's logits,
        [rows, vocabulary]. mask is [rows, all tokens so far], positions [rows, tokens]."""

    def read(
        self, ids: ndarray, mask: ndarray, positions: ndarray, pictures: Sequence[Mapping[str, Any]]
    ) -> ndarray:
        """Reads whole prompts with the pictures in them, on an empty cache, as `step` does what
        comes after; for models whose pictures are more than what stands at their places."""
        raise InputError("This engine takes no such pictures; --runtime torch does.")

    def step_all(self, embeds: ndarray, mask: ndarray, positions: ndarray) -> ndarray:
        """As `step`, with every token's logits, [rows, tokens, vocabulary]; one token after the
        other where an engine gives the last one's only."""
        past = mask.shape[1] - embeds.shape[1]
        return np.stack(
            [
                self.step(embeds[:, n : n + 1], mask[:, : past + n + 1], positions[:, n : n + 1])
                for n in range(embeds.shape[1])
            ],
            axis=1,
        )

    @abstractmethod
    def forget(self) -> None:
        """Empties the cache; the next step may have another number of rows."""

    def close(self) -> None:
        """Gives back what the engine holds."""
        return None
