"""Everything a search is calibrated and evaluated on, read and checked before a model is loaded."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slimsearch.calibration.pairs import Pair, Pairs, gather_pairs
from slimsearch.calibration.recipe import FilePairs, Recipe, read_recipe
from slimsearch.calibration.texts import gather_texts
from slimsearch.errors import CalibrationError
from slimsearch.settings import Settings, calibration_of

PAPER_SEGMENTS, PAPER_LENGTH = 64, 256  # SlimLLaVA's calibration


@dataclass(frozen=True)
class Also:
    """One more set to calibrate on: text or pairs."""

    name: str
    text: str = ""
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Material:
    recipe: str
    text: str
    text_origin: str
    held_text: str  # evaluation text, disjoint from `text`; "" if there is none
    pairs: tuple[Pair, ...]
    held_pairs: tuple[Pair, ...]  # of other pictures than `pairs`
    segments: int
    segment_length: int
    held_segments: int  # evaluation segments that the recipe asks for
    notes: tuple[str, ...]  # plain sentences worth telling the user
    also: tuple[Also, ...] = ()  # more that feeds the Hessians, and nothing else

    def fingerprint(self) -> str:
        """A hash over all that is calibrated and evaluated on, wherever its files stand."""
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(len(piece).to_bytes(8, "little"))  # so that pieces cannot run together
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self) -> Iterator[bytes]:
        yield f"{self.segments} {self.segment_length} {self.held_segments}".encode()
        yield self.text.encode()
        yield self.held_text.encode()
        yield from (also.text.encode() for also in self.also)
        for side in (self.pairs, self.held_pairs, *(also.pairs for also in self.also)):
            yield f"{len(side)} pairs".encode()
            for pair in side:
                yield repr(pair.turns).encode()
                yield from _picture_pieces(pair)


def gather(settings: Settings) -> Material:
    """All that these settings ask for, or a CalibrationError that says what is wrong with it."""
    recipe = read_recipe(calibration_of(settings))
    pairs = _gather_pairs(settings, recipe)
    texts = gather_texts(recipe.text, settings.seed)
    segments = settings.segments or recipe.segments
    length = settings.segment_length or recipe.segment_length
    notes = (*_size_notes(segments, length), *texts.notes, *pairs.notes)
    return Material(
        recipe.name, texts.text, texts.origin, texts.held, pairs.used, pairs.held,
        segments, length, recipe.held_segments, notes,
        tuple(_gather_also(name, settings, recipe) for name in also_names(settings)),
    )  # fmt: skip


def gather_pairs_only(settings: Settings) -> Pairs:
    """The pairs that `gather` would give, without looking for any text."""
    return _gather_pairs(settings, read_recipe(calibration_of(settings)))


def also_names(settings: Settings) -> list[str]:
    """The sets that `--also` names."""
    return [name.strip() for name in settings.also.split(",") if name.strip()]


def _gather_also(name: str, settings: Settings, recipe: Recipe) -> Also:
    """One of the sets in `--also`: a folder or .json holds pairs, anything else is text."""
    place = Path(name).expanduser()
    if place.is_dir() or place.suffix.lower() == ".json" or _holds_pictures(place):
        count = settings.pair_count or recipe.pair_count
        return Also(name, pairs=gather_pairs(FilePairs(name), count, 0, settings.seed).used)
    return Also(name, text=gather_texts(read_recipe(name).text, settings.seed).text)


def _holds_pictures(place: Path) -> bool:
    """Whether a .jsonl file's first line names a picture."""
    if place.suffix.lower() != ".jsonl" or not place.is_file():
        return False
    with place.open("rb") as stream:
        return b'"image"' in stream.readline(1 << 20)


def _gather_pairs(settings: Settings, recipe: Recipe) -> Pairs:
    source = recipe.pairs if settings.pairs == "auto" else FilePairs(settings.pairs)
    count = settings.pair_count or recipe.pair_count
    if settings.pairs == "none" or source is None or not count:
        return Pairs(notes=("There are no image-text pairs: only text is calibrated on.",))
    if isinstance(source, FilePairs) and not source.file.strip():
        raise CalibrationError("Pairs are given as an empty path. Give a file, 'auto' or 'none'.")
    return gather_pairs(source, count, recipe.held_pairs, settings.seed)


def _size_notes(segments: int, length: int) -> list[str]:
    notes = []
    if length != PAPER_LENGTH:
        effect = "faster to score, less sure" if length < PAPER_LENGTH else "slower to score"
        notes.append(
            f"Segments are {length} tokens long instead of the paper's {PAPER_LENGTH}: {effect}."
        )
    if segments != PAPER_SEGMENTS:
        notes.append(f"There are {segments} segments instead of the paper's {PAPER_SEGMENTS}.")
    return notes


def _picture_pieces(pair: Pair) -> Iterator[bytes]:
    if isinstance(pair.picture, Path):
        try:
            yield pair.picture.read_bytes()
        except OSError as error:
            raise CalibrationError(
                f"{pair.origin}: {pair.picture} cannot be read any more: {error.strerror}."
            ) from None
    else:
        yield f"{pair.picture.mode} {pair.picture.size}".encode()
        yield pair.picture.tobytes()
