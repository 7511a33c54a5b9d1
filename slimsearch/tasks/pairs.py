"""Questions about pictures, of any LLaVA-style file: share answered exactly, and answer loss."""

from __future__ import annotations

from typing import ClassVar

from slimsearch import official
from slimsearch.calibration.records import read_records
from slimsearch.calibration.turns import turns_of
from slimsearch.contracts import Question, Task, Words
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM


class Pairs(Task):
    tokens: ClassVar = 64
    wanted: ClassVar = "a LLaVA-style .json or a .jsonl of questions, with its pictures"

    def questions(self, data: str, words: Words | None) -> list[Question]:
        """Every question that has an answer, after the earlier ones of its conversation and what
        was answered to them; by kind where the file has a list of 'kinds'."""
        records, _ = read_records(official.place(data, self.wanted))
        found = []
        for number, record in enumerate(records, 1):
            turns = turns_of(record.content, record.origin)
            places = (".", "images")
            shown = official.picture(record.folder, record.image, places, record.origin)
            name = str(record.content.get("id", number))
            kinds = record.content.get("kinds") or ()
            for n, turn in enumerate(turns):
                if turn.answer is not None:
                    before = tuple((one.question, one.answer or "") for one in turns[:n])
                    groups = (str(kinds[n]),) if n < len(kinds) else ()
                    found.append(
                        Question(
                            f"{name}#{n + 1}" if len(turns) > 1 else name,
                            turn.question, shown, (_comparable(turn.answer),), groups, name, before,
                        )
                    )  # fmt: skip
        return found

    def read(self, question: Question, answer: str) -> str:
        return _comparable(answer)

    def measure(self, vlm: VLM, held_out: Calibrated) -> dict[str, float]:
        if not held_out.pairs:
            return {}
        right = [
            answer for batch in held_out.pairs for row in vlm.answers_right(batch) for answer in row
        ]
        return {
            "accuracy": sum(right) / len(right),
            "answer_loss": vlm.mean_loss(held_out.pairs),
        }


def _comparable(answer: str) -> str:
    return answer.strip()
