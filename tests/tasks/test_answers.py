"""VQA's rules for free text, case by case, and soft accuracy against its definition."""

import random
from statistics import mean

import pytest

from slimsearch.tasks import _answers

BOTH = {
    "": "",
    "The cat": "cat",
    "an apple and a pear": "apple and pear",
    "two": "2",
    "None": "0",
    "ten birds": "10 birds",
    "eleven": "eleven",
    "Yes.": "yes",
    "3.5": "3.5",
    "no. 5": "no 5",
    "dont know": "don't know",
    "couldntve": "couldntve",  # lacks two apostrophes: no spelling that is known
    "couldnt've": "couldn't've",
    "somebody'd": "somebodyd",
    "black-white": "black white",
    "black - white": "black white",
    "(red)": "red",
    "red/blue": "red blue",
    "$5": "$5",
    "red\nblue\tgreen": "red blue green",
    "A.": "",  # an article
    "a" + "." * 40: "a" + "." * 8,  # only 32 full stops are taken away
}


@pytest.mark.parametrize(("text", "wanted"), BOTH.items())
@pytest.mark.parametrize("rules", [_answers.plain, _answers.evalai])
def test_both_rules(text, wanted, rules):
    assert rules(text) == wanted


@pytest.mark.parametrize(
    ("text", "plain", "evalai"),
    [
        ("1,000", "1000", "1000"),
        ("1,000 (about)", "1000 about", "1000 about"),
        ("red,white", "red white", "redwhite"),
        ("why?not", "why not", "whynot"),
        ("the dog's", "dog's", "dog 's"),
    ],
)
def test_where_the_rules_part(text, plain, evalai):
    assert (_answers.plain(text), _answers.evalai(text)) == (plain, evalai)


def test_soft_accuracy_leaves_each_person_out_in_turn():
    draw = random.Random(0)
    for _ in range(300):
        said = [draw.choice("abcd") for _ in range(10)]
        answer = draw.choice("abcde")
        slow = mean(
            min(1, sum(said[j] == answer for j in range(10) if j != i) / 3) for i in range(10)
        )
        assert _answers.soft_accuracy(answer, said) == pytest.approx(slow)


@pytest.mark.parametrize(("count", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_soft_accuracy_of_so_many_people(count, score):
    said = ["red"] * count + ["blue"] * (10 - count)
    assert _answers.soft_accuracy("red", said) == pytest.approx(score)
