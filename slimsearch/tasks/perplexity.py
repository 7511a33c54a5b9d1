"""Perplexity of text, window by window: Penn Treebank, WikiText-2 or any text file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from slimsearch import official
from slimsearch.calibration import hub
from slimsearch.contracts import Examinee, Question, Task, Words
from slimsearch.errors import SettingsError, TaskError
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM
from slimsearch.scoring import Sums, ratio

LENGTH = 2048  # of SparseGPT's windows, and the most that is taken unless asked for
# On the hub: data set, revision, file, column, and what joins its rows in the literature.
ON_HUB = {
    "ptb": (
        "ptb-text-only/ptb_text_only", "refs/convert/parquet",
        "penn_treebank/test/0000.parquet", "sentence", " ",
    ),
    "wikitext2": (
        "Salesforce/wikitext", "main",
        "wikitext-2-raw-v1/test-00000-of-00001.parquet", "text", "\n\n",
    ),
}  # fmt: skip
FILES = ("ptb.test.txt", "wiki.test.raw", "wiki.test.tokens", "wikitext2.test.txt", "*.test.txt",
         "*.txt")  # fmt: skip
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Perplexity(Task):
    length: int = 0  # tokens of a window; 0: what the model reads, 2048 at most
    stride: int = 0  # from one window to the next; 0: the length, so that none overlap
    room: int = 0  # tokens that the model reads

    headline: ClassVar = "perplexity"
    wanted: ClassVar = "a text file, a folder with ptb.test.txt or wiki.test.raw, ptb or wikitext2"

    def questions(self, data: str, words: Words | None) -> list[Question]:
        """A question for each window: how likely are those tokens that none before it had?"""
        if words is None:
            raise SettingsError("Perplexity is a model's own: give a model instead of --answers.")
        length = self.length or min(self.room or LENGTH, LENGTH)
        stride = self.stride or length
        if length < 2 or not 0 < stride <= length:
            raise SettingsError(f"Windows of {length} tokens every {stride} cannot be: give "
                                f"--length 2 or more, and a --stride up to that.")  # fmt: skip
        if self.room and length > self.room:
            raise SettingsError(f"--length {length} is more than the {self.room} tokens that this "
                                f"model reads.")  # fmt: skip
        name, text = _text(data, self.wanted)
        ids = words(text)
        found = list(_windows(name, ids, length, stride))
        if not found:
            raise TaskError(f"{name} makes {len(ids)} tokens and fills no window of {length}. Give "
                            f"more text, or a smaller --length.")  # fmt: skip
        return found

    def about(self, questions: Sequence[Question]) -> str:
        return questions[0].facts["text"]

    def respond(self, examinee: Examinee, questions: Sequence[Question]) -> list[str]:
        found = examinee.log_likelihoods([(q.facts["ids"], q.facts["first"]) for q in questions])
        return [repr(value) for value in found]

    def mark(self, question: Question, answer: str) -> dict[str, float]:
        predicted = len(question.facts["ids"]) - question.facts["first"]
        return {"loss": -float(answer), "tokens": float(predicted)}

    def figures(self, sums: Sums) -> dict[str, Any]:
        return {"perplexity": np.exp(np.minimum(ratio(sums["loss"], sums["tokens"]), 80.0))}

    def measure(self, vlm: VLM, held_out: Calibrated) -> dict[str, float]:
        if not held_out.texts:
            return {}
        return {"perplexity": exp(min(vlm.mean_loss(held_out.texts), 80.0))}


def _windows(name: str, ids: Sequence[int], length: int, stride: int) -> Iterator[Question]:
    """A last window that is not full counts only where windows overlap, as in the literature."""
    known = 1  # tokens that were predicted, or never are
    for start in range(0, len(ids), stride):
        stop = min(start + length, len(ids))
        if stop - start < length and stride == length:
            return
        first = max(known - start, 1)
        if stop - start > first:
            facts = {"ids": ids[start:stop], "first": first, "text": name}
            yield Question(f"{start}-{stop}", f"{name}, tokens {start} to {stop}", facts=facts)
        known = stop
        if stop == len(ids):
            return


def _text(data: str, wanted: str) -> tuple[str, str]:
    """The text as the literature joins it, and its name."""
    if data in ON_HUB and not Path(data).exists():
        dataset, revision, name, column, join = ON_HUB[data]
        file = hub.fetch(dataset, name, revision, f"Without the hub, give --data {wanted}.")
        return data, hub.read_column(file, column, join, MOST_BYTES)[0]
    file = official.find(official.place(data, wanted), FILES, wanted)
    text = official.text(file)
    if file.name.startswith("ptb"):
        return file.name, " ".join(line.strip() for line in text.splitlines())
    if file.name.startswith("wiki.test"):
        return file.name, "\n\n".join(text.splitlines(keepends=True))
    return file.name, text
