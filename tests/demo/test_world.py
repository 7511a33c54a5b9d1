"""The world repeats itself, keeps its splits apart, and asks only what it can answer."""

import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from slimsearch.demo.grammar import NUMBERS, write_paragraph, write_text
from slimsearch.demo.world import (
    CELL,
    COLOURS,
    KINDS,
    PICTURE_SIZE,
    SHAPES,
    SPLITS,
    Scene,
    Thing,
    ask,
    draw_scene,
    pictures,
    split_of,
    stream,
    text,
)

SCENE = Scene(
    (Thing("red", "circle", 0, 0), Thing("blue", "circle", 1, 0), Thing("red", "square", 1, 1))
)


def answer_again(scene: Scene, asked: str) -> set[str]:
    """Every answer the scene allows to a question, worked out from its words alone."""
    if " A. " in asked:
        asked, options = asked.removesuffix(" Answer with the letter.").split(" A. ")
        by_option = {}
        for part in f"A. {options}".replace(". ", ".").split(" "):
            letter, option = part.split(".")
            by_option[option] = letter
        return {by_option.get(answer, "none") for answer in answer_again(scene, asked)}
    words = asked.rstrip("?").split()
    if words[:2] == ["How", "many"]:
        name = words[2]
        return {
            str(
                sum(
                    name in (thing.colour, f"{thing.shape}s", f"{thing.shape}es")
                    for thing in scene.things
                )
            )
        }
    if words[:2] == ["Is", "there"]:
        return {
            "yes"
            if any([thing.colour, thing.shape] == words[3:] for thing in scene.things)
            else "no"
        }
    named = [thing for thing in scene.things if is_named(thing, words)]
    feature = "place" if words[0] == "Where" else words[1]
    return {getattr(thing, feature) for thing in named}


def is_named(thing: Thing, words: list[str]) -> bool:
    if "in" in words:
        return thing.place == words[-1]
    said = set(words)
    colours, shapes = said & set(COLOURS), said & set(SHAPES)
    return colours <= {thing.colour} and shapes <= {thing.shape}


def test_the_same_arguments_give_the_same_world():
    first, again = pictures("evaluation", 5, 6, seed=3), pictures("evaluation", 5, 6, seed=3)
    assert first == again
    assert all(np.array_equal(one.image, two.image) for one, two in zip(first, again, strict=True))
    assert pictures("evaluation", 2, 6, seed=3) == first[:2]
    assert pictures("evaluation", 5, 6, seed=4) != first
    assert text("training", 500, seed=1) == text("training", 500, seed=1)
    assert text("training", 500, seed=1) != text("training", 500, seed=2)
    assert write_text(5, 100) == write_text(5, 100) != write_text(6, 100)


def test_no_scene_is_in_two_splits():
    drawn = {
        split: {picture.scene.things for picture in pictures(split, 300, 1)} for split in SPLITS
    }
    for split, scenes in drawn.items():
        assert {split_of(repr(things)) for things in scenes} == {split}
    assert not drawn["training"] & drawn["evaluation"]
    assert not drawn["training"] & drawn["calibration"]
    assert not drawn["calibration"] & drawn["evaluation"]


def test_a_scene_of_another_split_is_drawn_again():
    """Freely drawn scenes do fall into every split, so the rejection is what keeps them apart."""
    rng = random.Random(0)
    shares = Counter(split_of(repr(draw_scene(rng).things)) for _ in range(2000))
    assert 80 < shares["evaluation"] < 170
    assert 80 < shares["calibration"] < 170


def test_no_paragraph_is_in_two_splits():
    for split in SPLITS:
        whole = text(split, 1000).split("\n")[:-1]
        assert {split_of(paragraph) for paragraph in whole} == {split}


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="test"):
        next(stream("test", 1))
    with pytest.raises(ValueError, match="test"):
        text("test", 10)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_follow_from_the_scene(split):
    for picture in pictures(split, 150, 8):
        assert len({question.text for question in picture.questions}) == 8
        for question in picture.questions:
            assert answer_again(picture.scene, question.text) == {question.answer}, question


def test_every_kind_asks_about_a_known_scene():
    rng = random.Random(1)
    for kind in KINDS:
        for _ in range(40):
            question = ask(SCENE, kind, rng)
            assert question.kind == kind
            assert answer_again(SCENE, question.text) == {question.answer}


def test_no_position_is_asked_where_things_look_alike():
    alike = Scene((Thing("red", "ring", 0, 0), Thing("red", "ring", 1, 1)))
    assert ask(alike, "position", random.Random(0)) is None


def test_no_constant_answer_does_well():
    answers = {kind: Counter() for kind in KINDS}
    for picture in pictures("evaluation", 1000, 6):
        for question in picture.questions:
            answers[question.kind][question.answer] += 1
    best = {kind: max(counts.values()) / counts.total() for kind, counts in answers.items()}
    assert best["existence"] < 0.55
    assert best["count"] < 0.40
    assert best["choice"] < 0.30
    assert best["colour"] < 0.22
    assert best["shape"] < 0.26
    assert best["position"] < 0.30


def test_things_are_painted_in_their_own_cells():
    one = Scene((Thing("white", "square", 1, 0),), grain=5)
    pixels = np.asarray(one.render(), np.float32)
    assert pixels.shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
    brightest = np.unravel_index(pixels.sum(-1).argmax(), pixels.shape[:2])
    assert [index // CELL for index in brightest] == [1, 0]
    other = Scene(one.things, grain=6)
    assert not np.array_equal(one.render(), other.render())


def test_paragraphs_keep_their_counts_straight():
    """Where a paragraph asks how many someone has, the answer is what was last said of them."""
    rng = random.Random(2)
    checked = 0
    for _ in range(500):
        said: dict[str, str] = {}
        sentences = write_paragraph(rng).replace("?", ".").split(". ")
        for sentence, following in pairwise([*sentences, ""]):
            words = sentence.split()
            if words[0] == "Now":
                said[words[1]] = words[3]
            elif len(words) > 3 and words[1] == "gives":
                said.pop(words[0], None)
                said.pop(words[-1], None)
            elif words[:2] == ["How", "many"] and words[4] in said:
                assert following.split()[2].rstrip(".") == said[words[4]]
                assert said[words[4]] in NUMBERS
                checked += 1
    assert checked > 20


def test_text_has_the_number_of_words_asked_for():
    for words in (0, 1, 77, 1000):
        assert len(text("calibration", words).split()) == words
        assert len(write_text(0, words).split()) == words


def test_the_world_is_light_to_import():
    code = "import sys, slimsearch.demo.world; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
