"""Free text made comparable as the VQA challenges do it: punctuation, articles, numbers, forms.

Two ways of the same rules: the VQA toolkit's, and that of the EvalAI servers for TextVQA, which
drops commas and question marks and parts 's from its word first. LLaVA's published figures for
TextVQA and VizWiz use the latter.
"""

from __future__ import annotations

import re

NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
ARTICLES = ("a", "an", "the")
MARKS = ';/[]"{}()=+\\_-><@`,?!'
FULL_STOP = re.compile(r"\.(?!\d)")
FULL_STOPS = 32  # the toolkit takes away so many: it hands a flag (re.UNICODE) over as the count
COMMA_IN_NUMBER = re.compile(r"\d,\d")

# A form is written for every spelling of it that lacks one apostrophe.
FORMS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
""".split()  # noqa: SIM905


def _spellings(form: str) -> list[str]:
    return [form[:n] + form[n + 1 :] for n, letter in enumerate(form) if letter == "'"]


CONTRACTIONS = {spelling: form for form in FORMS for spelling in _spellings(form)}
CONTRACTIONS |= {"somebody'd": "somebodyd"}  # the toolkit has this one the other way round


def plain(text: str) -> str:
    """As the VQA toolkit reads an answer."""
    return _words(_unmarked(text.replace("\n", " ").replace("\t", " ").strip()))


def evalai(text: str) -> str:
    """As the EvalAI servers read one."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return plain(text)


def soft_accuracy(answer: str, references: list[str]) -> float:
    """Three people who said the same make it right: the mean over all but one of them at a time."""
    said = sum(reference == answer for reference in references)
    people = len(references)
    return (
        said * min(1.0, (said - 1) / 3) + (people - said) * min(1.0, said / 3)
    ) / people  # fmt: skip


def _unmarked(text: str) -> str:
    """A mark beside a blank goes, any other becomes a blank; in a text with 1,000 all go."""
    number = COMMA_IN_NUMBER.search(text)
    out = text
    for mark in MARKS:
        gone = mark + " " in text or " " + mark in text or number
        out = out.replace(mark, "" if gone else " ")
    return FULL_STOP.sub("", out, count=FULL_STOPS)


def _words(text: str) -> str:
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
