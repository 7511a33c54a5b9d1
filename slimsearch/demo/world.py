"""The demo's world: small pictures of coloured shapes, questions about them, and plain text.

A scene is a handful of shapes on a 2 x 2 grid whose cells hold 3 x 3 patches each. Questions are
asked only where the scene has exactly one right answer. Everything follows from a seed, and what
a scene or a paragraph says decides which split it may appear in, so splits cannot overlap.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
from PIL import Image, ImageDraw

from slimsearch.demo.grammar import gather, write_paragraph, write_text

__all__ = [
    "COLOURS",
    "KINDS",
    "PICTURE_SIZE",
    "SHAPES",
    "SPLITS",
    "Picture",
    "Question",
    "Scene",
    "Thing",
    "ask",
    "draw_scene",
    "pictures",
    "split_of",
    "stream",
    "text",
    "write_text",
]

SPLITS = ("training", "calibration", "evaluation")
KINDS = ("colour", "shape", "count", "existence", "position", "choice")
COLOURS = {
    "red": (205, 45, 45),
    "green": (50, 160, 60),
    "blue": (50, 80, 205),
    "yellow": (225, 205, 60),
    "purple": (140, 60, 165),
    "white": (235, 235, 235),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
# Each corner has one word of its own: of "top left" and "top right" a small model learns the first.
CORNERS = (("northwest", "northeast"), ("southwest", "southeast"))
SIDE = len(CORNERS)  # cells along an edge
LETTERS = "ABCD"
CELL = 24
PICTURE_SIZE = CELL * SIDE


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    colour: str
    shape: str
    row: int
    column: int

    @property
    def place(self) -> str:
        return CORNERS[self.row][self.column]


@dataclass(frozen=True)
class Scene:
    """Things on the grid, in reading order; `grain` seeds only how they are painted."""

    things: tuple[Thing, ...]
    grain: int = 0

    def render(self) -> Image.Image:
        """The scene as a square picture with uneven shades, sizes and background."""
        rng = np.random.default_rng(self.grain)
        canvas = np.full((PICTURE_SIZE, PICTURE_SIZE, 3), rng.uniform(70, 110), np.float32)
        canvas += rng.normal(0, 8, 3)
        for thing in self.things:
            size, left, top = rng.integers(17, 22), *rng.integers(0, 3, 2)
            mask = _stencil(thing.shape, int(size), int(left), int(top))[..., None]
            paint = np.array(COLOURS[thing.colour]) * rng.uniform(0.85, 1.0) + rng.normal(0, 8, 3)
            rows = slice(thing.row * CELL, (thing.row + 1) * CELL)
            columns = slice(thing.column * CELL, (thing.column + 1) * CELL)
            canvas[rows, columns] += mask * (paint - canvas[rows, columns])
        canvas += rng.normal(0, 6, canvas.shape)
        return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Question:
    """A question with its one short answer; `kind` is one of KINDS."""

    kind: str
    text: str
    answer: str


@dataclass(frozen=True)
class Picture:
    """A scene, what is asked about it, and the split it belongs to."""

    scene: Scene
    questions: tuple[Question, ...]
    split: str

    @property
    def image(self) -> Image.Image:
        return self.scene.render()


def pictures(split: str, count: int, questions_each: int, seed: int = 0) -> list[Picture]:
    """`count` pictures of a split; the same arguments always give the same pictures."""
    made = stream(split, questions_each, seed)
    return [next(made) for _ in range(count)]


def stream(split: str, questions_each: int, seed: int = 0) -> Iterator[Picture]:
    """Pictures of a split without end; no picture depends on how many were drawn before it."""
    item = 0
    while True:
        rng = _random(split, "picture", seed, item)
        scene = draw_scene(rng)
        while split_of(repr(scene.things)) != split:
            scene = draw_scene(rng)
        yield Picture(scene, tuple(_questions(scene, questions_each, rng)), split)
        item += 1


def text(split: str, words: int, seed: int = 0) -> str:
    """`words` words of a split's paragraphs, one paragraph a line."""
    rng = _random(split, "text", seed)

    def next_paragraph() -> str:
        paragraph = write_paragraph(rng)
        while split_of(paragraph) != split:
            paragraph = write_paragraph(rng)
        return paragraph

    return gather(words, next_paragraph)


def split_of(content: str) -> str:
    """The only split in which this content may appear: one part in 16 each is held out."""
    share = sha256(content.encode()).digest()[0] % 16
    return {0: "evaluation", 1: "calibration"}.get(share, "training")


def draw_scene(rng: random.Random) -> Scene:
    """Two to four things in a few colours and shapes, so that some of them repeat."""
    colours = rng.sample(list(COLOURS), rng.randint(2, 4))
    shapes = rng.sample(SHAPES, rng.randint(2, 4))
    cells = sorted(rng.sample(range(SIDE * SIDE), rng.randint(2, 4)))
    things = tuple(
        Thing(rng.choice(colours), rng.choice(shapes), *divmod(cell, SIDE)) for cell in cells
    )
    return Scene(things, rng.getrandbits(32))


def ask(scene: Scene, kind: str, rng: random.Random) -> Question | None:
    """A question of that kind, or None where the scene allows no unambiguous one."""
    if kind == "choice":
        return _ask_choice(scene, rng)
    asked = _ASKERS[kind](scene, rng)
    return Question(kind, *asked) if asked else None


def _random(split: str, what: str, *numbers: int) -> random.Random:
    if split not in SPLITS:
        raise ValueError(f"no split named {split!r}; the splits are {', '.join(SPLITS)}")
    return random.Random("/".join((split, what, *map(str, numbers))))


def _questions(scene: Scene, number: int, rng: random.Random) -> list[Question]:
    """Different questions, the kinds in turn so that each gets its share."""
    found: dict[str, Question] = {}
    tries = 0
    while len(found) < number:
        for kind in rng.sample(KINDS, len(KINDS)):
            question = ask(scene, kind, rng)
            if question and len(found) < number:
                found.setdefault(question.text, question)
        tries += 1
        if tries > 20 * number:
            raise ValueError(f"a scene has no {number} different questions")
    return list(found.values())


def _lone(things: Sequence[Thing], feature: str) -> list[Thing]:
    """The things that share this feature with no other."""
    counts = Counter(getattr(thing, feature) for thing in things)
    return [thing for thing in things if counts[getattr(thing, feature)] == 1]


def _ask_colour(scene: Scene, rng: random.Random) -> tuple[str, str]:
    lone = _lone(scene.things, "shape")
    if lone and rng.random() < 0.6:
        thing = rng.choice(lone)
        return f"What colour is the {thing.shape}?", thing.colour
    thing = rng.choice(scene.things)
    return f"What colour is the thing in the {thing.place}?", thing.colour


def _ask_shape(scene: Scene, rng: random.Random) -> tuple[str, str]:
    lone = _lone(scene.things, "colour")
    if lone and rng.random() < 0.6:
        thing = rng.choice(lone)
        return f"What shape is the {thing.colour} thing?", thing.shape
    thing = rng.choice(scene.things)
    return f"What shape is the thing in the {thing.place}?", thing.shape


def _ask_count(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """How many of one colour or one shape; high counts, being rare, are asked for first."""
    feature, values = rng.choice((("colour", tuple(COLOURS)), ("shape", SHAPES)))
    counts = Counter(getattr(thing, feature) for thing in scene.things)
    by_count: dict[int, list[str]] = {}
    for value in values:
        by_count.setdefault(counts[value], []).append(value)
    number = rng.choices(list(by_count), [0.6 + number**1.6 for number in by_count])[0]
    value = rng.choice(by_count[number])
    noun = f"{value} things" if feature == "colour" else _plural(value)
    return f"How many {noun} are there?", str(number)


def _ask_existence(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Yes and no are equally likely; a wrong pair has at least its colour or shape there."""
    there = {(thing.colour, thing.shape) for thing in scene.things}
    if rng.random() < 0.5:
        colour, shape = rng.choice(sorted(there))
        return f"Is there a {colour} {shape}?", "yes"
    colours, shapes = {colour for colour, _ in there}, {shape for _, shape in there}
    missing = [
        (colour, shape)
        for colour in COLOURS
        for shape in SHAPES
        if (colour, shape) not in there and (colour in colours or shape in shapes)
    ]
    colour, shape = rng.choice(missing)
    return f"Is there a {colour} {shape}?", "no"


def _ask_position(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    named = [(f"{thing.colour} thing", thing) for thing in _lone(scene.things, "colour")]
    named += [(thing.shape, thing) for thing in _lone(scene.things, "shape")]
    pairs = Counter((thing.colour, thing.shape) for thing in scene.things)
    named += [
        (f"{thing.colour} {thing.shape}", thing)
        for thing in scene.things
        if pairs[thing.colour, thing.shape] == 1
    ]
    if not named:
        return None
    name, thing = rng.choice(named)
    return f"Where is the {name}?", thing.place


def _ask_choice(scene: Scene, rng: random.Random) -> Question:
    """A colour or shape question with four options, the right letter at random."""
    asker, values = rng.choice(((_ask_colour, tuple(COLOURS)), (_ask_shape, SHAPES)))
    asked, answer = asker(scene, rng)
    options = rng.sample([value for value in values if value != answer], len(LETTERS) - 1)
    right = rng.randrange(len(LETTERS))
    options.insert(right, answer)
    pairs = zip(LETTERS, options, strict=True)
    listed = " ".join(f"{letter}. {option}" for letter, option in pairs)
    return Question("choice", f"{asked} {listed} Answer with the letter.", LETTERS[right])


_ASKERS = {
    "colour": _ask_colour,
    "shape": _ask_shape,
    "count": _ask_count,
    "existence": _ask_existence,
    "position": _ask_position,
}


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


@cache
def _stencil(shape: str, size: int, left: int, top: int) -> np.ndarray:
    """How much of each pixel of a cell the shape covers, drawn large and scaled down."""
    fine = 4
    mask = Image.new("L", (CELL * fine, CELL * fine))
    pen = ImageDraw.Draw(mask)
    x, y, side = left * fine, top * fine, size * fine - 1
    box = (x, y, x + side, y + side)
    third = side // 3
    if shape == "circle":
        pen.ellipse(box, fill=255)
    elif shape == "square":
        pen.rectangle(box, fill=255)
    elif shape == "triangle":
        pen.polygon([(x, y + side), (x + side, y + side), (x + side // 2, y)], fill=255)
    elif shape == "cross":
        pen.rectangle((x + third, y, x + side - third, y + side), fill=255)
        pen.rectangle((x, y + third, x + side, y + side - third), fill=255)
    else:
        pen.ellipse(box, outline=255, width=4 * fine)
    return np.asarray(mask.resize((CELL, CELL), Image.Resampling.BOX), np.float32) / 255
