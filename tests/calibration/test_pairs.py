import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from slimsearch.calibration import Pair, Turn
from slimsearch.calibration.pairs import Pairs, gather_pairs, split_records
from slimsearch.calibration.recipe import DemoPairs, FilePairs
from slimsearch.calibration.records import Record
from slimsearch.calibration.turns import GENERAL_QUESTION
from slimsearch.errors import CalibrationError

SAID = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A dog."}]


def gathered(place: str, count: int = 64, held: int = 200, seed: int = 0) -> Pairs:
    return gather_pairs(FilePairs(place), count, held, seed)


def refusal_of(place: str, count: int = 64) -> str:
    with pytest.raises(CalibrationError) as refusal:
        gathered(place, count)
    return str(refusal.value)


def names(pairs: tuple[Pair, ...]) -> list[str]:
    return [pair.origin for pair in pairs]


def test_llava_records_become_pairs(records):
    found = gathered(records(20), 5, 3)
    assert (len(found.used), len(found.held)) == (5, 3)
    for pair in found.used + found.held:
        number = int(pair.origin.split("(id id")[1].rstrip(")"))
        assert pair.origin == f"pairs.json, record {number + 1} (id id{number})"
        assert pair.turns == (Turn(f"What is {number}?", f"It is {number}."),)
        assert pair.open().getpixel((0, 0)) == (number, 0, 7)
    assert found.notes == (
        "pairs.json: of 20 records 5 calibrate; 3 others are kept for evaluation.",
    )


@pytest.mark.parametrize(
    ("said", "turns"),
    [
        (
            ["What?\n<image>", "A dog.", "Where?", "There."],
            [("What?", "A dog."), ("Where?", "There.")],
        ),
        (["Is <image> a dog?"], [("Is  a dog?", None)]),
        (["<image>", "A dog."], [(GENERAL_QUESTION, "A dog.")]),
        (["Hm?", "A dog.", "And?"], [("Hm?", "A dog."), ("And?", None)]),
    ],
)
def test_conversations_become_turns(records, said: list[str], turns: list[tuple]):
    speakers = ("human", "gpt") * 2
    conversation = [{"from": who, "value": text} for who, text in zip(speakers, said, strict=False)]
    place = records(1)
    Path(place).write_text(json.dumps([{"image": "0.png", "conversations": conversation}]))
    found = gathered(place)
    assert found.used[0].turns == tuple(Turn(*turn) for turn in turns)
    assert found.used[0].origin == "pairs.json, record 1"


@pytest.mark.parametrize(
    ("keys", "turn"),
    [
        ({"question": "What?", "answer": "A dog."}, Turn("What?", "A dog.")),
        ({"question": "<image>\nWhat?"}, Turn("What?", None)),
        ({"text": "A dog."}, Turn(GENERAL_QUESTION, "A dog.")),
        ({}, Turn(GENERAL_QUESTION, None)),
    ],
)
def test_lines_become_pairs(here: Path, paint, keys: dict, turn: Turn):
    paint("deep/a.png")
    (here / "pairs.jsonl").write_text("\n" + json.dumps({"image": "deep/a.png"} | keys) + "\n")
    (pair,) = gathered("pairs.jsonl").used
    assert pair.turns == (turn,)
    assert pair.origin == "pairs.jsonl, line 2"


def test_a_folder_of_pictures_becomes_unanswered_pairs(here: Path, paint):
    for number, name in enumerate(("b.PNG", "a.jpg", "c.webp", "d.bmp", "e.jpeg", "deep/f.png")):
        paint(f"photos/{name}", 40 * number)
    (here / "photos/notes.txt").write_text("words")
    (here / "photos/._a.jpg").write_text("not a picture")
    found = gathered("photos")
    assert sorted(names(found.used)) == [
        f"photos, {name}" for name in ("a.jpg", "b.PNG", "c.webp", "d.bmp", "e.jpeg")
    ]
    assert all(pair.turns == (Turn(GENERAL_QUESTION, None),) for pair in found.used)
    assert found.notes == (
        "photos: of 5 records 5 calibrate; none is kept for evaluation.",
        "photos: 5 questions have no answer; the dense model's own is the target.",
    )


def test_records_without_one_picture_are_left_out(records):
    others = [{"id": "t", "conversations": SAID}, {"image": None}, {"image": ["a.png", "b.png"]}]
    found = gathered(records(2, *others, {"image": ["0.png"], "text": "One in a list."}))
    assert len(found.used) == 3
    assert found.notes[:2] == (
        "pairs.json: 2 of 6 records have no picture; left out.",
        "pairs.json: 1 of 6 records have several pictures; left out.",
    )


@pytest.mark.parametrize(
    ("found", "asked", "used", "held"),
    [
        (9, 64, 9, 0),
        (9, 4, 4, 5),
        (10, 64, 8, 2),
        (70, 64, 56, 14),
        (80, 64, 64, 16),
        (99, 5, 5, 20),
    ],
)
def test_a_fifth_is_spared_for_evaluation(found: int, asked: int, used: int, held: int):
    split = split_records(some_records(range(found)), asked, 20, seed=0)
    assert tuple(map(len, split)) == (used, held)


def test_no_evaluation_no_sparing():
    split = split_records(some_records(range(20)), 64, 0, seed=0)
    assert tuple(map(len, split)) == (20, 0)


def test_the_seed_decides():
    items = some_records(range(50))
    assert split_records(items, 9, 9, 1) == split_records(items, 9, 9, 1)
    assert split_records(items, 9, 9, 1) != split_records(items, 9, 9, 2)


@pytest.mark.parametrize("seed", range(5))
def test_records_of_one_picture_land_on_one_side(seed: int):
    items = some_records([number % 5 for number in range(100)])
    used, held = split_records(items, 64, 200, seed)
    assert len(used) == 64
    assert len(held) == 20
    assert not {item.image for item in used} & {item.image for item in held}


def some_records(pictures) -> list[Record]:
    return [Record(str(index), Path(), str(name), {}) for index, name in enumerate(pictures)]


def test_copies_of_a_picture_are_not_on_both_sides(here: Path, paint):
    paint("photos/0.png", 0)
    for number in range(1, 20):
        shutil.copy(here / "photos/0.png", here / f"photos/{number}.png")
    found = gathered("photos", 5)
    assert (len(found.used), len(found.held)) == (5, 0)
    assert found.notes[1] == "photos: 15 pictures kept for evaluation were copies; left out."


def test_only_used_records_are_looked_at(records):
    place = records(5, *({"image": f"none{number}.png"} for number in range(5)))
    images = [item["image"] for item in json.loads(Path(place).read_text())]
    outcomes = set()
    for seed in range(8):
        ((chosen,), _) = split_records(some_records(images), 1, 0, seed)
        outcomes.add(chosen.image.startswith("none"))
        if chosen.image.startswith("none"):
            with pytest.raises(CalibrationError, match=f"there is no picture '{chosen.image}'"):
                gathered(place, 1, 0, seed)
        else:
            assert f"(id id{chosen.image[0]})" in gathered(place, 1, 0, seed).used[0].origin
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        ({"id": "x", "image": "none.png"}, "record 3 (id x): there is no picture 'none.png' in "),
        ({"image": "a\0b.png"}, "record 3: there is no picture 'a\\x00b.png'"),
        ({"image": "a" * 5000}, "record 3: there is no picture 'aaa"),
        ({"image": "\ud800.png"}, "record 3: there is no picture '\\ud800.png'"),
        ({"image": "../0.png"}, "record 3: the picture '../0.png' leaves the folder "),
        ({"image": "images/../../0.png"}, "leaves the folder "),
        ({"image": "/etc/passwd"}, "record 3: the picture '/etc/passwd' leaves the folder "),
        ({"image": "C:\\0.png"}, "leaves the folder "),
        ({"image": "..\\0.png"}, "leaves the folder "),
        ({"image": 7}, "record 3: 'image' must be a path, found 7."),
        ("words", "pairs.json: pairs.json, record 3 is no object."),
        ({"image": "0.png", "conversations": []}, "record 3: 'conversations' must be a list of"),
        ({"image": "0.png", "conversations": "hi"}, "record 3: 'conversations' must be a list of"),
        ({"image": "0.png", "conversations": SAID[1:]}, "turn 1 must be from 'human', found 'gpt'"),
        ({"image": "0.png", "conversations": SAID[:1] * 2}, "turn 2 must be from 'gpt', found 'hu"),
        ({"image": "0.png", "conversations": ["hi"]}, "turn 1 must be from 'human', found 'hi'"),
        ({"image": "0.png", "conversations": [SAID[0], {"from": "gpt", "value": " "}]},
         "record 3: turn 2 holds no text, found ' '."),
        ({"image": "0.png", "conversations": [SAID[0], {"from": "gpt"}]},
         "record 3: turn 2 holds no text, found None."),
        ({"image": "0.png", "text": "<image>"}, "record 3: 'text' holds no text, found '<image>'."),
        ({"image": "0.png", "question": 3}, "record 3: 'question' holds no text, found 3."),
        ({"image": "0.png", "question": "a", "answer": "\ud800"}, "'answer' holds no text"),
    ],
)  # fmt: skip
def test_a_faulty_record_is_refused(records, faulty: Any, message: str):
    assert message in refusal_of(records(2, faulty))


@pytest.mark.parametrize(
    "record",
    ['{"image": {"a": %s}}', '{"id": %s, "image": "none.png"}',
     '{"image": "0.png", "conversations": [%s]}', '{"image": "0.png", "conversations": {"a": %s}}',
     '{"image": "0.png", "text": %s}'],
)  # fmt: skip
def test_what_is_nested_or_long_is_refused_in_a_few_words(here: Path, records, record: str):
    records(1)
    for value in ("[" * depth + "]" * depth for depth in range(600, 1000, 10)):
        (here / "pairs.json").write_text(f"[{record % value}]")
        assert len(refusal_of("pairs.json")) < 500
    (here / "pairs.json").write_text(f"[{record % json.dumps(['word' * 10**6] * 9)}]")
    assert len(refusal_of("pairs.json")) < 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "pairs.json is no JSON: "),
        (b"[{]", "pairs.json is no JSON: "),
        (b"\xff", "pairs.json is no JSON: "),
        (b"[" * 100_000, "pairs.json is no JSON: "),
        (b'{"image": "a.png"}\n{"image": "b.png"}', "rename it to .jsonl."),
        (b'{"v1": {}}', "pairs.json holds no list of records but an object."),
        (b"7", "pairs.json holds no list of records but 7."),
        (b"[]", "pairs.json has no record with one picture (0 records, 0 without 'image', 0 with"),
        (b'[{"id": 1}]', "has no record with one picture (1 records, 1 without 'image', 0 with"),
    ],
)
def test_a_faulty_file_is_refused(here: Path, content: bytes, message: str):
    (here / "pairs.json").write_bytes(content)
    assert message in refusal_of("pairs.json")


def test_a_faulty_line_is_refused(here: Path):
    (here / "pairs.jsonl").write_text('{"image": "a.png"}\n\n{"image": \n')
    assert "pairs.jsonl, line 3 is no JSON: " in refusal_of("pairs.jsonl")


def test_what_holds_no_pairs_is_refused(here: Path):
    (here / "empty").mkdir()
    (here / "pairs.csv").write_text("a,b")
    os.mkfifo(here / "pipe.json")
    assert "There are no pairs at none.json." in refusal_of("none.json")
    assert "There are no pairs at aaaa" in refusal_of("a" * 5000)
    assert "The folder empty holds no picture (.png, " in refusal_of("empty")
    assert "Pairs pairs.csv are of no known kind." in refusal_of("pairs.csv")
    assert "Pairs pipe.json are of no known kind." in refusal_of("pipe.json")


def test_a_damaged_picture_names_its_record(here: Path, records):
    place = records(3)
    file = here / "images/1.png"
    file.write_bytes(file.read_bytes()[:-20])
    message = refusal_of(place)
    assert message.startswith("pairs.json, record 2 (id id1): ")
    assert "images/1.png is damaged or cut short" in message


def test_demo_pairs_follow_the_seed_but_their_yardstick_does_not():
    source = DemoPairs(questions_each=4, held_questions_each=3)
    first, again, other = (gather_pairs(source, 5, 6, seed) for seed in (0, 0, 1))
    assert (len(first.used), len(first.held)) == (5, 6)
    assert {len(pair.turns) for pair in first.used} == {4}
    assert {len(pair.turns) for pair in first.held} == {3}
    assert all(turn.answer for pair in first.used for turn in pair.turns)
    assert first.used[0].origin == "the demo's calibration picture 1"
    assert looks(first.used) == looks(again.used) != looks(other.used)
    assert looks(first.held) == looks(other.held)
    assert not set(looks(first.used)) & set(looks(first.held))


def looks(pairs: tuple[Pair, ...]) -> list[bytes]:
    return [pair.open().tobytes() for pair in pairs]
