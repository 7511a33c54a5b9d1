"""What an export in our own engine still knows: perplexity and VQA, as ratios to the first folder.

    python benchmarks/native_quality.py EXPORT [EXPORT ...] --text valid.txt --pairs dev.json

Every token passes through the engine: text token by token as in decoding, questions as prompts.
"""

from argparse import ArgumentParser
from math import exp
from pathlib import Path

import numpy as np

from slimsearch import artefact
from slimsearch.api import generating
from slimsearch.api.generating import Talk
from slimsearch.calibration.pairs import gather_pairs
from slimsearch.calibration.recipe import FilePairs
from slimsearch.contracts import Session
from slimsearch.model import conversation

LENGTH, ROWS = 256, 16


def perplexity(session: Session, rows: np.ndarray) -> float:
    """Of segments [n, LENGTH], ROWS side by side, one token of each at a time."""
    total = 0.0
    for first in range(0, len(rows), ROWS):
        some = rows[first : first + ROWS]
        session.forget()
        for place in range(LENGTH - 1):
            mask = np.ones((len(some), place + 1), np.int64)
            positions = np.full((len(some), 1), place)
            logits = session.step(session.embed(some[:, place : place + 1]), mask, positions)
            logits -= logits.max(1, keepdims=True)
            chosen = logits[np.arange(len(some)), some[:, place + 1]]
            total -= float((chosen - np.log(np.exp(logits).sum(1))).sum())
    return exp(total / (len(rows) * (LENGTH - 1)))


def accuracy(folder: Path, pairs: str, count: int) -> float:
    """The share of first questions that are answered exactly."""
    _, speaker = generating.open(folder, "native")
    asked = [pair for pair in gather_pairs(FilePairs(pairs), count, 0, 0).used]
    right = 0
    for pair in asked:
        turn = pair.turns[0]
        (answer,) = speaker.ask([Talk(Path(pair.picture))], [turn.question], 48)
        right += answer.text == (turn.answer or "").strip()
    speaker.session.close()
    return right / len(asked)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="exports; ratios are to the first")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--pair-count", type=int, default=300)
    parser.add_argument("--segments", type=int, default=64)
    given = parser.parse_args()
    first: tuple[float, float] | None = None
    for folder in given.folders:
        found = artefact.find(folder)
        speech = conversation.load(found.checkpoint)
        ids = np.array(speech.tokens(given.text.read_text("utf-8")))
        rows = ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH)
        rows = rows[:: max(1, len(rows) // given.segments)][: given.segments]
        _, speaker = generating.open(folder, "native")
        figures = perplexity(speaker.session, rows), accuracy(folder, given.pairs, given.pair_count)
        speaker.session.close()
        first = first or figures
        print(
            f"{folder}: {found.recorded('native')['about']} perplexity {figures[0]:.3f} "
            f"({figures[0] / first[0]:.4f} of the first), accuracy {figures[1]:.4f} "
            f"({figures[1] / first[1]:.4f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
