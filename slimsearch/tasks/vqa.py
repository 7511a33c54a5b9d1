"""Short answers to open questions: VizWiz, VQAv2 and TextVQA by soft accuracy, GQA exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from slimsearch import official
from slimsearch.contracts import Question, Task, Words
from slimsearch.official import BRIEFLY
from slimsearch.scoring import WHOLE, Sums, ratio
from slimsearch.tasks import _answers, _vqa
from slimsearch.tasks._vqa import DATASETS, UNANSWERABLE


@dataclass(frozen=True)
class Vqa(Task):
    dataset: str = ""  # vizwiz, vqav2, textvqa or gqa; known by the files where not said
    instruction: str = BRIEFLY  # behind every question

    order: ClassVar = ("yes/no", "number", "other", UNANSWERABLE)
    tokens: ClassVar = 32
    wanted: ClassVar = _vqa.WANTED

    def questions(self, data: str, words: Words | None) -> list[Question]:
        return [official.asked(one, self.instruction) for one in _vqa.read(data, self.dataset)]

    def about(self, questions: Sequence[Question]) -> str:
        return questions[0].facts["dataset"]

    def read(self, question: Question, answer: str) -> str:
        return DATASETS[question.facts["dataset"]].comparable(answer)

    def mark(self, question: Question, answer: str) -> dict[str, float]:
        """By what ten people said, for GQA by one; for VizWiz also whether it rightly refused."""
        if not question.expected:
            return {}
        said = self.read(question, answer)
        references = [self.read(question, reference) for reference in question.expected]
        if question.facts["dataset"] == "gqa":
            return {"right": float(said in references), "count": 1.0}
        addends = {"right": _answers.soft_accuracy(said, references), "count": 1.0}
        if (answerable := question.facts.get("answerable")) is not None:
            refused = said == UNANSWERABLE
            addends["refused"] = float(refused)
            addends["unanswerable"] = float(not answerable)
            addends["refused_rightly"] = float(refused and not answerable)
        return addends

    def summary(self, by_group: Mapping[str, dict[str, Any]], sums: Sums) -> dict[str, Any]:
        """For VizWiz how well it knows what cannot be answered, too. Average precision is that of
        answers which are yes or no: of one point of its curve."""
        found = dict(by_group[WHOLE])
        if "refused" in sums:
            rightly, refused = sums["refused_rightly"], sums["refused"]
            precision = np.nan_to_num(ratio(rightly, refused))
            recall = ratio(rightly, sums["unanswerable"])
            share = ratio(sums["unanswerable"], sums["count"])
            found["unanswerable_f1"] = 100 * ratio(2 * rightly, refused + sums["unanswerable"])
            found["unanswerable_ap"] = 100 * (recall * precision + (1 - recall) * share)
        return found

    def submission(self, answered: Sequence[tuple[Question, str]]) -> dict[str, str]:
        if not answered:
            return {}
        known = DATASETS[answered[0][0].facts["dataset"]]
        lines = [
            {known.column: question.facts["name"], known.said: self.read(question, answer)}
            for question, answer in answered
        ]
        return {".json": json.dumps(lines)}
