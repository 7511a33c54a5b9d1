"""Calibration text and, apart from it, text to evaluate on: from the demo, the hub or a file."""

from dataclasses import dataclass
from pathlib import Path

from slimsearch.calibration import hub
from slimsearch.calibration.recipe import DemoText, FileText, HubText
from slimsearch.calibration.textfile import read_text

LIMIT = 16 << 20  # bytes read of a calibration text: in tokens they take a hundred times as much
HELD_LIMIT = 4 << 20  # bytes read of an evaluation text
DEMO_YARDSTICK = 0  # evaluation is the same whatever the run's seed


@dataclass(frozen=True)
class Texts:
    text: str
    origin: str
    held: str
    notes: tuple[str, ...] = ()


def gather_texts(source: DemoText | HubText | FileText, seed: int) -> Texts:
    """The text of a recipe's source; `seed` matters to the demo's only."""
    if isinstance(source, DemoText):
        return _from_demo(source, seed)
    if isinstance(source, FileText):
        return _from_file(source)
    file = _local(source.local)
    return _from_file(FileText(str(file), join=source.join)) if file else _from_hub(source)


def _from_demo(source: DemoText, seed: int) -> Texts:
    from slimsearch.demo import world

    text = world.text("calibration", source.words, seed)
    held = world.text("evaluation", source.held_words, DEMO_YARDSTICK)
    return Texts(text, "the demo's calibration text", held)


def _local(name: str) -> Path | None:
    """A file of this name where the user stands, or in calibration/ there."""
    places = [Path.cwd() / name, Path.cwd() / "calibration" / name] if name else []
    return next((file for file in places if file.is_file()), None)


def _from_hub(source: HubText) -> Texts:
    put = f"put {source.local} into this folder, or " if source.local else ""
    example = source.local or "text.txt"
    advice = f"Without the hub, {put}give a local file: --calibration path/to/{example}."
    notes = []
    read = []
    for name, limit in ((source.file, LIMIT), (source.held_file, HELD_LIMIT)):
        file = hub.fetch(source.dataset, name, source.revision, advice)
        text, cut = hub.read_column(file, source.column, source.join, limit)
        notes += [_cut_note(f"{source.dataset}, {name}", limit)] if cut else []
        read.append(text)
    return Texts(read[0], f"{source.dataset}, {source.file}", read[1], tuple(notes))


def _from_file(source: FileText) -> Texts:
    file = Path(source.file).expanduser()
    text, cut = read_text(file, source.join, LIMIT)
    notes = [_cut_note(str(file), LIMIT)] if cut else []
    held_file = Path(source.held_file) if source.held_file else _sibling(file)
    if held_file:
        held, cut = read_text(held_file, source.join, HELD_LIMIT)
        notes += [_cut_note(str(held_file), HELD_LIMIT)] if cut else []
        notes.append(f"{held_file} is kept for evaluation.")
    else:
        text, held = _last_tenth(text)
        notes.append(
            f"The last tenth of {file} is kept for evaluation." if held
            else f"{file} is too short to keep a tenth of it for evaluation."
        )  # fmt: skip
    return Texts(text, str(file), held, tuple(notes))


def _sibling(file: Path) -> Path | None:
    """X.valid.txt beside X.train.txt."""
    first, last, suffix = file.name.rpartition(f".train{file.suffix}")
    sibling = file.with_name(f"{first}.valid{file.suffix}")
    return sibling if last and not suffix and sibling.is_file() else None


def _last_tenth(text: str) -> tuple[str, str]:
    """The text in two, parted at white space; an empty second part where there is none."""
    start = len(text) - min(len(text) // 10, HELD_LIMIT)
    while start < len(text) and not text[start].isspace():
        start += 1
    held = text[start:].strip()
    return (text[:start], held) if held else (text, "")


def _cut_note(origin: str, limit: int) -> str:
    return f"{origin} is longer than {limit >> 20} MiB; only so much of it is used."
