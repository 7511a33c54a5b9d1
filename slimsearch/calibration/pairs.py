"""Image-text pairs: which records calibrate, which are kept for evaluation, every picture checked.

No picture is on both sides, neither by name nor by content.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from posixpath import normpath

from PIL import Image

from slimsearch.calibration.pictures import check_picture, load_picture
from slimsearch.calibration.recipe import DemoPairs, FilePairs
from slimsearch.calibration.records import Record, picture_of, read_records
from slimsearch.calibration.turns import Turn, turns_of

FEW = 10  # with fewer records than this none is spared for evaluation
DEMO_YARDSTICK = 0  # evaluation is the same whatever the run's seed


@dataclass(frozen=True)
class Pair:
    """A picture and what is said about it; `origin` names its record in errors."""

    origin: str
    picture: Path | Image.Image
    turns: tuple[Turn, ...]

    def open(self) -> Image.Image:
        """The picture as RGB."""
        if isinstance(self.picture, Path):
            return load_picture(self.picture, self.origin)
        return self.picture.convert("RGB")


@dataclass(frozen=True)
class Pairs:
    used: tuple[Pair, ...] = ()
    held: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()


def gather_pairs(source: DemoPairs | FilePairs, count: int, held_count: int, seed: int) -> Pairs:
    """`count` pairs to calibrate on and up to `held_count` others to evaluate on."""
    if isinstance(source, DemoPairs):
        return _from_demo(source, count, held_count, seed)
    place = Path(source.file).expanduser()
    records, notes = read_records(place)
    used_records, held_records = split_records(records, count, held_count, seed)
    used, seen = _checked(used_records, set())
    held, _ = _checked(held_records, seen)
    notes.append(_split_note(place, len(records), used, held))
    if len(held) < len(held_records):
        double = len(held_records) - len(held)
        notes.append(f"{place}: {double} pictures kept for evaluation were copies; left out.")
    silent = sum(turn.answer is None for pair in used for turn in pair.turns)
    if silent:
        notes.append(
            f"{place}: {silent} questions have no answer; the dense model's own is the target."
        )
    return Pairs(used, held, tuple(notes))


def split_records(
    records: Sequence[Record], count: int, held_count: int, seed: int
) -> tuple[list[Record], list[Record]]:
    """Records to calibrate on and to evaluate on, in an order drawn by seed.

    At least a fifth of the pictures is spared for evaluation, if there are enough records.
    """
    shuffled = list(records)
    random.Random(seed).shuffle(shuffled)
    pictures = len({normpath(record.image) for record in records})
    spared = min(held_count, ceil(pictures / 5)) if len(records) >= FEW and pictures > 1 else 0
    used: list[Record] = []
    others: list[Record] = []
    seen: set[str] = set()
    for record in shuffled:
        picture = normpath(record.image)
        if len(used) < count and (picture in seen or len(seen) < pictures - spared):
            used.append(record)
            seen.add(picture)
        else:
            others.append(record)
    held = [record for record in others if normpath(record.image) not in seen]
    return used, held[:held_count]


def _from_demo(source: DemoPairs, count: int, held_count: int, seed: int) -> Pairs:
    from slimsearch.demo import world

    def pairs(split: str, number: int, questions_each: int, seed: int) -> tuple[Pair, ...]:
        return tuple(
            Pair(
                f"the demo's {split} picture {index}",
                picture.image,
                tuple(Turn(question.text, question.answer) for question in picture.questions),
            )
            for index, picture in enumerate(world.pictures(split, number, questions_each, seed), 1)
        )

    return Pairs(
        pairs("calibration", count, source.questions_each, seed),
        pairs("evaluation", held_count, source.held_questions_each, DEMO_YARDSTICK),
    )


def _checked(records: Sequence[Record], unwanted: set[str]) -> tuple[tuple[Pair, ...], set[str]]:
    """Pairs of the records whose pictures are sound and not among the unwanted; their hashes."""
    pairs: list[Pair] = []
    hashes: set[str] = set()
    checked: dict[Path, str] = {}
    for record in records:
        file = picture_of(record)
        if file not in checked:
            checked[file] = check_picture(file, record.origin)
        turns = turns_of(record.content, record.origin)
        if checked[file] not in unwanted:
            hashes.add(checked[file])
            pairs.append(Pair(record.origin, file, turns))
    return tuple(pairs), hashes


def _split_note(place: Path, found: int, used: Sequence[Pair], held: Sequence[Pair]) -> str:
    kept = f"{len(held)} others are kept for evaluation" if held else "none is kept for evaluation"
    return f"{place}: of {found} records {len(used)} calibrate; {kept}."
