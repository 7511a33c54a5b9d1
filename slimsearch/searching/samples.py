"""A few answers of the dense model beside the pruned one's, on pictures not calibrated on.

One pass of each model over all held-out questions says where they part: an answer in which each
likeliest token is the same is the same answer. Only some of those are then written out by both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimsearch import files
from slimsearch.calibration import Pair
from slimsearch.model import conversation
from slimsearch.model.batch import Batch
from slimsearch.model.conversation import ANSWER_TOKENS, Speech
from slimsearch.model.decoding import Prompt, greedy
from slimsearch.model.resident import Resident
from slimsearch.model.vlm import VLM

MOST = 6  # answers that are written out
ALIKE = 2  # of them at most where both models say the same
WIDEST = 336  # pixels of a picture that is kept
SMALL = 128  # up to here a picture is kept as PNG, without loss

Asked = tuple[str, int]  # a pair's origin, and which of its questions


@dataclass(frozen=True)
class Sample:
    origin: str
    question: str
    expected: str | None  # None: the data has no answer, the dense model's own was the target
    dense: str
    pruned: str
    picture: str  # file name


def take(
    vlm: VLM,
    speech: Speech,
    pairs: Sequence[Pair],
    batches: Iterable[Batch],
    put_on: Mapping[str, Callable[[], object]],
    folder: Path,
) -> dict[str, Any]:
    """What both said, as a journal keeps it; pictures go into a new folder.

    `put_on["dense"]` and `put_on["pruned"]` put a model's weights on; the pruned stay.
    """
    batches, said = list(batches), {}
    for model in ("dense", "pruned"):
        put_on[model]()
        said[model] = {
            (origin, turn): tokens
            for batch in batches
            for origin, turns in zip(batch.origins, vlm.says(batch), strict=True)
            for turn, tokens in turns.items()
        }
    dense, pruned = said["dense"], said["pruned"]
    differing = {asked for asked in dense if dense[asked] != pruned[asked]}
    chosen = _chosen(pairs, list(dense), differing)
    put_on["dense"]()
    prompts = [_prompt(vlm, speech, pair, turn) for pair, turn in chosen]
    answers = {}
    for model in ("dense", "pruned"):
        put_on[model]()
        answers[model] = _answers(vlm, speech, prompts)
    files.remove(folder)  # of a crash before the journal told of it
    with files.new_folder(folder) as place:
        found = [
            Sample(
                pair.origin, pair.turns[turn].question, pair.turns[turn].answer, one, other,
                _keep(pair, place, number),
            )
            for number, ((pair, turn), one, other) in enumerate(
                zip(chosen, answers["dense"], answers["pruned"], strict=True), 1
            )
        ]  # fmt: skip
    return {
        "asked": len(dense),
        "differing": len(differing),
        "samples": [asdict(sample) for sample in found],
    }


def _chosen(
    pairs: Sequence[Pair], asked: Sequence[Asked], differing: set[Asked]
) -> list[tuple[Pair, int]]:
    """Questions to write out: those that differ, over many pictures, then a few others."""
    of = {pair.origin: (place, pair) for place, pair in enumerate(pairs)}
    ordered = sorted(asked, key=lambda one: (of[one[0]][0], one[1]))
    apart = [one for one in ordered if one in differing]
    first = list({origin: (origin, turn) for origin, turn in reversed(apart)}.values())[::-1]
    apart = [*first, *(one for one in apart if one not in first)][:MOST]
    alike = [one for one in ordered if one not in differing and one[1] == 0]
    some = [*apart, *alike[: min(ALIKE, MOST - len(apart))]]
    return [(of[origin][1], turn) for origin, turn in some]


def _prompt(vlm: VLM, speech: Speech, pair: Pair, turn: int) -> Prompt:
    """The conversation up to a question, the picture in it."""
    (whole,) = conversation.answered(vlm, speech, [pair])
    shown = speech.show(pair.open())
    ids = conversation.question_ids(speech, whole.turns[: turn + 1], shown)
    return Prompt(ids, shown=shown.inputs)


def _answers(vlm: VLM, speech: Speech, prompts: Sequence[Prompt]) -> list[str]:
    """What the model says to each, greedily."""
    if not prompts:
        return []
    said = greedy(Resident(vlm), prompts, speech.ends, ANSWER_TOKENS)
    return [speech.decode(tokens).strip() for tokens in said]


def _keep(pair: Pair, folder: Path, number: int) -> str:
    """A pair's picture, made no larger than it is looked at."""
    shown = pair.open()
    shown.thumbnail((WIDEST, WIDEST))
    name = f"{number}.png" if max(shown.size) <= SMALL else f"{number}.jpg"
    shown.save(folder / name, quality=85)
    return name
