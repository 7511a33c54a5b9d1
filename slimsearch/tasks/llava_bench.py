"""LLaVA-Bench in the wild: a judge grades an answer and that of GPT-4, which saw captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from slimsearch import official
from slimsearch.contracts import JudgedTask, Question, Words
from slimsearch.scoring import Sums, ratio

# Our own words for the published manner; a rule.json beside the questions takes their place.
INSTRUCTION = """\
Two assistants answered the question above about a picture. You do not see it; the context says
what is in it. Grade how helpful, relevant, accurate and detailed each answer is, from 1 to 10,
where more is better. The order in which they stand must not matter. Write one line with the two
grades alone, the first assistant's first, parted by a blank. Explain yourself in the lines after
it."""


class LlavaBench(JudgedTask):
    order: ClassVar = ("conv", "detail", "complex")
    tokens: ClassVar = 1024
    wanted: ClassVar = "questions.jsonl, context.jsonl, answers_gpt4.jsonl and images/ in a folder"

    def questions(self, data: str, words: Words | None) -> list[Question]:
        rows = official.rows(data, "lmms-lab/llava-bench-in-the-wild", "default", "train")
        if rows is not None:
            return [
                _question(str(row["question_id"]), row["question"], row["category"],
                          row["gpt_answer"], str(row["caption"]), row["image"], {}) for row in rows
            ]  # fmt: skip
        folder = official.place(data, self.wanted)
        file = official.find(folder, ("questions.jsonl", "**/questions.jsonl"), self.wanted)
        captions = _captions(_beside(file, "context.jsonl"))
        answers = _answers(_beside(file, "answers_gpt4.jsonl"))
        rule = file.with_name("rule.json")
        rules = official.record(official.read(rule), str(rule)) if rule.is_file() else {}
        found = []
        for number, line in enumerate(official.objects(official.read(file), file), 1):
            name = official.name(line, "question_id", f"{file}, question {number}")
            where = f"{file}, question {name}"
            image = official.field(line, "image", str, where)
            shown = official.picture(file.parent, image, ("images", "."), where)
            asked = official.field(line, "text", str, where)
            kind = official.field(line, "category", str, where)
            said, gpt4 = captions.get(image, ""), answers.get(name, "")
            found.append(_question(str(name), asked, kind, gpt4, said, shown, rules))
        return found

    def case(self, question: Question, answer: str) -> str:
        facts, role = question.facts, question.facts["role"]
        parts = [
            f"[Context]\n{facts['context']}",
            f"[Question]\n{question.prompt}",
            f"[{role} 1]\n{question.expected[0]}\n\n[End of {role} 1]",
            f"[{role} 2]\n{answer}\n\n[End of {role} 2]",
            f"[System]\n{facts['instruction']}",
        ]
        return "\n\n".join(parts) + "\n\n"

    def verdict(self, reply: str) -> dict[str, float] | None:
        """Two numbers in the first line, parted by a blank or a comma."""
        try:
            first, second = map(float, reply.strip().split("\n")[0].replace(",", " ").split())
        except ValueError:
            return None
        return {"theirs": first, "ours": second} if first > 0 and 0 < second <= 10 else None

    def figures(self, sums: Sums) -> dict[str, Any]:
        return {"score": 100 * ratio(sums["ours"], sums["theirs"])}

    def submission(self, answered: Sequence[tuple[Question, str]]) -> dict[str, str]:
        lines = [
            {"question_id": int(question.id) if question.id.isdigit() else question.id,
             "prompt": question.prompt, "text": answer, "answer_id": question.id,
             "model_id": "slimsearch", "metadata": {}}
            for question, answer in answered
        ]  # fmt: skip
        return {".jsonl": "".join(json.dumps(line) + "\n" for line in lines)}

    def how_to_grade(self) -> str:
        return (
            "LLaVA-Bench's answers are graded by a judge: name one with --judge URL --judge-model "
            "NAME, or hand the submission file to LLaVA's eval_gpt_review_bench"
        )


def _question(
    name: str, asked: str, kind: str, gpt4: str, context: str, shown: Any, rules: dict[str, Any]
) -> Question:
    where = f"rule.json, llava_bench_{kind}"
    rule = official.record(rules.get(f"llava_bench_{kind}", {}), where)
    facts = {
        "context": context,
        "role": official.perhaps(rule, "role", str, where) or "Assistant",
        "instruction": official.perhaps(rule, "prompt", str, where) or INSTRUCTION,
    }
    return Question(name, asked, shown, (gpt4,) if gpt4 else (), (kind,), facts=facts)


def _captions(beside: tuple[Path, list[dict[str, Any]]]) -> dict[str, str]:
    """What is in each picture: a text, or a list of them, as lines."""
    file, lines = beside
    found = {}
    for number, line in enumerate(lines, 1):
        where = f"{file}, line {number}"
        caption = line.get("caption")
        if not isinstance(caption, str):
            caption = "\n".join(official.texts(line, "caption", where))
        found[official.field(line, "image", str, where)] = caption
    return found


def _answers(beside: tuple[Path, list[dict[str, Any]]]) -> dict[str | int, str]:
    """GPT-4's, by question."""
    file, lines = beside
    return {
        official.name(line, "question_id", f"{file}, line {number}"):
        official.field(line, "text", str, f"{file}, line {number}")
        for number, line in enumerate(lines, 1)
    }  # fmt: skip


def _beside(file: Path, name: str) -> tuple[Path, list[dict[str, Any]]]:
    found = official.find(file.parent, (name,), LlavaBench.wanted)
    return found, official.objects(official.read(found), found)
