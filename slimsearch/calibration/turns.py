"""What a record says about its picture: questions and answers, in one of three shapes.

    {"conversations": [{"from": "human", "value": "<image>\\nWhat?"},
                       {"from": "gpt", "value": "A dog."}]}
    {"question": "What?", "answer": "A dog."}
    {"text": "A dog on a lawn."}

The marker <image> is dropped wherever it stands: the chat template has its own.
"""

import reprlib
from dataclasses import dataclass
from typing import Any

from slimsearch.errors import CalibrationError

GENERAL_QUESTION = "Describe the picture."
_MARKER = "<image>"


@dataclass(frozen=True)
class Turn:
    """A question and its answer; None lets the dense model's own greedy answer be the target."""

    question: str
    answer: str | None


def turns_of(content: dict[str, Any], origin: str) -> tuple[Turn, ...]:
    """The questions and answers of a record; `origin` names it in an error."""
    if "conversations" in content:
        return _conversation(content["conversations"], origin)
    if "text" in content and "question" not in content:
        return (Turn(GENERAL_QUESTION, _said(content["text"], "'text'", origin)),)
    question, answer = content.get("question"), content.get("answer")
    return (
        Turn(
            GENERAL_QUESTION if question is None else _said(question, "'question'", origin),
            None if answer is None else _said(answer, "'answer'", origin),
        ),
    )


def _conversation(said: Any, origin: str) -> tuple[Turn, ...]:
    """Human and model in turn; the last question may be without an answer."""
    if not isinstance(said, list) or not said:
        raise CalibrationError(
            f"{origin}: 'conversations' must be a list of turns, with some; found "
            f"{reprlib.repr(said)}. Correct or drop the record."
        )
    texts: list[str] = []
    for number, entry in enumerate(said, 1):
        speaker = "gpt" if len(texts) % 2 else "human"
        if not isinstance(entry, dict) or entry.get("from") != speaker:
            found = entry.get("from") if isinstance(entry, dict) else entry
            raise CalibrationError(
                f"{origin}: turn {number} must be from '{speaker}', found {reprlib.repr(found)}. "
                f"Turns go human, gpt, human, gpt."
            )
        asked = entry.get("value")
        if number == 1 and isinstance(asked, str) and not asked.replace(_MARKER, "").strip():
            asked = GENERAL_QUESTION
        texts.append(_said(asked, f"turn {number}", origin))
    answers: list[str | None] = [*texts[1::2], None]
    return tuple(
        Turn(question, answer) for question, answer in zip(texts[::2], answers, strict=False)
    )


def _said(value: Any, what: str, origin: str) -> str:
    text = value.replace(_MARKER, "").strip() if isinstance(value, str) else ""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = ""
    if not text:
        raise CalibrationError(
            f"{origin}: {what} holds no text, found {reprlib.repr(value)}. Write some, or leave an "
            f"answer out altogether to let the dense model give it."
        )
    return text
