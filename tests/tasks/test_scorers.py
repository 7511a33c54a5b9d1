"""What each task reads out of answers and makes of them, by the published rules."""

import json
from dataclasses import replace

import official
import pytest

from slimsearch.contracts import Question
from slimsearch.evaluation import marking
from slimsearch.tasks.llava_bench import LlavaBench
from slimsearch.tasks.mme import Mme
from slimsearch.tasks.mmvet import MmVet
from slimsearch.tasks.pope import Pope
from slimsearch.tasks.scienceqa import ScienceQA
from slimsearch.tasks.vqa import Vqa

THREE = Question("1", "", expected=("B",), facts={"choices": 3})


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B. the sea", "B"),
        ("The answer is B.", "B"),
        ("I think so. The answer is B. Because of that.", "B"),
        ("The answer is B, of course", "B"),
        ("The answer is B", ""),  # nothing follows the letter
        ("The answer is B\n", ""),
        ("The answer is B\nBecause of that.", ""),
        ("B.", ""),
        ("B.the sea", ""),
        ("(B)", ""),
        ("b", ""),
        ("B ", ""),
        ("", ""),
        ("AB", ""),
        ("A, B", ""),
        ("The answer is A. The answer is B.", ""),
        ("The answer is (B).", ""),
        ("the answer is B.", ""),
        ("D", ""),  # there are three choices
        ("The answer is D.", ""),
        ("Z. the sea", ""),
        ("The answer is Z.", ""),
    ],
)
def test_scienceqa_reads_a_letter_as_llava_does(answer, letter):
    assert ScienceQA().read(THREE, answer) == letter
    assert ScienceQA().mark(THREE, answer) == {"right": float(letter == "B"), "count": 1.0}


def test_scienceqa_takes_numbers_for_places():
    assert [ScienceQA().given(n) for n in (0, 4, -1, 5, "B")] == ["A", "E", "", "", "B"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("No", "no"),
        ("no, there is none", "no"),
        ("No.", "no"),
        ("There is not.", "no"),
        ("Yes", "yes"),
        ("Yes. There is no doubt", "yes"),  # only the first sentence counts
        ("There is none", "yes"),
        ("NO", "yes"),
        ("nothing", "yes"),
        ("", "yes"),
    ],
)
def test_pope_reads_no(answer, said):
    assert Pope().read(Question("1", "", expected=("no",)), answer) == said


def test_pope_counts_by_split_and_takes_the_mean():
    asked = [("yes", "Yes"), ("yes", "No"), ("no", "Yes"), ("no", "No"), ("no", "No")]
    answered = [
        (Question(f"{split}{n}", "", expected=(label,), groups=(split,)), said)
        for split, some in (("random", asked), ("popular", asked[:2]))
        for n, (label, said) in enumerate(some)
    ]
    whole, groups = marking.figures(Pope(), marking.mark(Pope(), answered), 0)
    values = {name: figure["value"] for name, figure in groups["random"].items()}
    assert values == pytest.approx(
        {"accuracy": 60, "precision": 50, "recall": 50, "f1": 50, "yes_ratio": 40}
    )
    assert groups["popular"]["f1"]["value"] == pytest.approx(200 / 3)
    assert whole["mean_f1"]["value"] == pytest.approx((50 + 200 / 3) / 2)
    assert whole["f1"]["value"] == pytest.approx(100 * 2 * 2 / (3 + 4))
    assert list(groups) == ["random", "popular"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", "yes"),
        ("yes, there is", "yes"),
        ("No.", "no"),
        ("nothing", "no"),
        ("a no", "no"),
        ("is yes", "other"),
        ("Y", "other"),
        ("", "other"),
    ],
)
def test_mme_reads_yes_no_or_other(answer, said):
    assert Mme().read(Question("1", ""), answer) == said


def test_mme_wants_both_answers_about_a_picture():
    said = {"a": ("yes", "no"), "b": ("yes", "yes"), "c": ("maybe", "no")}
    answered = [
        (Question(f"{name}{n}", "", expected=((right),), groups=(kind,), unit=name), answer)
        for name, kind in (("a", "count"), ("b", "count"), ("c", "text_translation"))
        for n, (right, answer) in enumerate(zip(("yes", "no"), said[name], strict=True))
    ]
    whole, groups = marking.figures(Mme(), marking.mark(Mme(), answered), 0)
    assert groups["count"]["accuracy"]["value"] == 75
    assert groups["count"]["accuracy+"]["value"] == 50
    assert {name: one["value"] for name, one in whole.items()} == {
        "perception": 125, "cognition": 50,
    }  # fmt: skip


def test_mme_is_handed_over_as_its_eval_tool_reads_it(tmp_path):
    """Read back by the tool's own rules: four fields, two lines a picture, the same marks."""
    task = Mme()
    asked = task.questions(str(official.mme(tmp_path)), None)
    answers = ["Yes", "no, there\tis\nnone", "maybe", "No"] * (len(asked) // 4)
    answered = list(zip(asked, answers, strict=True))
    files = task.submission(answered)
    assert set(files) == {"/existence.txt", "/code_reasoning.txt"}
    right = 0
    for content in files.values():
        lines = [line.split("\t") for line in content.splitlines()]
        assert {len(line) for line in lines} == {4}
        assert all(one[0] == two[0] for one, two in zip(lines[::2], lines[1::2], strict=True))
        assert all(line[1].endswith("Please answer yes or no.") for line in lines)
        for _, _, truth, said in lines:
            start = said.lower()[:4]
            right += ("yes" if "yes" in start else "no" if "no" in start else "") == truth.lower()
    assert right == sum(task.mark(*pair)["right"] for pair in answered)


def test_scienceqa_is_handed_over_by_places_and_read_back():
    answered = [(THREE, "C. the sea"), (replace(THREE, id="2"), "(B)")]
    (content,) = ScienceQA().submission(answered).values()
    assert json.loads(content) == {
        "results": {"1": 2, "2": -1}, "outputs": {"1": "C. the sea", "2": "(B)"},
    }  # fmt: skip


def vizwiz(said: list[str], answerable: bool) -> Question:
    facts = {"dataset": "vizwiz", "name": "x.jpg", "answerable": answerable}
    kind = "other" if answerable else "unanswerable"
    return Question(str(id(said)), "", expected=tuple(said), groups=(kind,), facts=facts)


def test_vizwiz_knows_what_cannot_be_answered():
    red, lost = ["red"] * 9 + ["The red."], ["unanswerable"] * 10
    answered = [
        (vizwiz(red, True), "Red."), (vizwiz([*red], True), "unanswerable"),
        (vizwiz(lost, False), "Unanswerable"), (vizwiz([*lost], False), "a red one"),
    ]  # fmt: skip
    whole, groups = marking.figures(Vqa(), marking.mark(Vqa(), answered), 0)
    assert whole["accuracy"]["value"] == 50
    assert groups["other"]["accuracy"]["value"] == 50
    # By the ranking that average precision goes through: two said so, one of them rightly.
    assert whole["unanswerable_f1"]["value"] == pytest.approx(50)
    assert whole["unanswerable_ap"]["value"] == pytest.approx(100 * (0.5 * 0.5 + 0.5 * 0.5))
    assert Vqa().submission(answered[:1]) == {".json": '[{"image": "x.jpg", "answer": "red"}]'}


@pytest.mark.parametrize(
    ("answer", "right"), [("Cat.", 1), ("cat", 1), ("the cat", 0), ("cats", 0), ("", 0)]
)
def test_gqa_is_exact(answer, right):
    question = Question("1", "", expected=("cat",), facts={"dataset": "gqa", "name": "1"})
    assert Vqa().mark(question, answer) == {"right": right, "count": 1}


def test_what_has_no_right_answer_is_not_marked():
    question = Question("1", "", facts={"dataset": "vizwiz", "name": "x"})
    marked = marking.mark(Vqa(), [(question, "red")])
    assert marking.figures(Vqa(), marked, 0) == ({}, {})


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("0.5", 0.5),
        (" 1.0\n", 1.0),
        ("| 0.3 |", 0.3),
        ("The grade is 0.7.", 0.7),
        ("between 0.2 and 0.4", None),
        ("7", None),
        ("I cannot say.", None),
        ("", None),
    ],
)
def test_mmvet_reads_a_grade(reply, grade):
    found = MmVet().verdict(reply)
    assert found == (None if grade is None else {"grade": grade, "count": 1.0})


def test_mmvet_asks_with_the_ground_truths_parts():
    question = Question("v1_0", "What is x?", expected=("-1<AND>-5",))
    assert MmVet().case(question, "x is\n-1").endswith("\nWhat is x? | -1 <AND> -5 | x is -1 | ")


@pytest.mark.parametrize(
    ("reply", "grades"),
    [
        ("8 6\nBecause.", (8, 6)),
        ("8.5, 7", (8.5, 7)),
        ("8\n6", None),
        ("Assistant 1: 8", None),
        ("0 5", None),
        ("8 11", None),
        ("", None),
    ],
)
def test_llava_bench_reads_two_grades(reply, grades):
    found = LlavaBench().verdict(reply)
    assert found == (grades and {"theirs": grades[0], "ours": grades[1]})


def test_llava_bench_is_a_ratio_of_sums():
    verdicts = [{"theirs": 8.0, "ours": 6.0}, {"theirs": 10.0, "ours": 3.0}, None]
    answered = [(Question(str(n), "", groups=(kind,)), "")
                for n, kind in enumerate(("conv", "detail", "conv"))]  # fmt: skip
    whole, groups = marking.figures(LlavaBench(), marking.graded(answered, verdicts), 0)
    assert whole["score"]["value"] == pytest.approx(50)
    assert groups["conv"]["score"]["value"] == pytest.approx(75)
