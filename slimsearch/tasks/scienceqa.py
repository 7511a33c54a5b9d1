"""ScienceQA: multiple choice with text and pictures; letters read out of answers as LLaVA does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slimsearch import official
from slimsearch.contracts import Question, Task, Words
from slimsearch.errors import SettingsError, TaskError

LETTERS = "ABCDE"
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
SAID = re.compile(r"The answer is ([A-Z]).")
LAST_LINE = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class ScienceQA(Task):
    split: str = ""  # of pid_splits.json; the test set, or the only one that there is
    form: str = "letters"  # as LLaVA 1.5 was asked; or "options", as LLaVA-SQA was
    instruction: str = LAST_LINE  # behind the letters

    order: ClassVar = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12")
    tokens: ClassVar = 32
    wanted: ClassVar = "a folder with ScienceQA's problems.json, pid_splits.json and images/"

    def questions(self, data: str, words: Words | None) -> list[Question]:
        if self.form not in ("letters", "options"):
            raise SettingsError(f"There is no form '{self.form}' of a prompt: letters or options.")
        rows = official.rows(data, "derek-thomas/ScienceQA", "default", self.split or "test")
        if rows is not None:
            return [self._question(str(n), row, row["image"], f"row {n}") for n, row in
                    enumerate(rows)]  # fmt: skip
        folder = official.place(data, self.wanted)
        file = official.find(folder, ("problems.json", "*/problems.json"), self.wanted)
        problems = official.read(file)
        if not isinstance(problems, dict):
            raise TaskError(f"{file} holds no problems by number. --data wants {self.wanted}.")
        found = []
        for number in self._numbers(file, problems):
            where = f"{file}, problem {number}"
            if not isinstance(problem := problems.get(number), dict):
                raise TaskError(f"{where} is missing, though pid_splits.json names it.")
            found.append(self._question(number, problem, _picture(file, number, problem), where))
        return found

    def given(self, answer: Any) -> str:
        """A number is the place of a choice, and -1 none, as ScienceQA's own results have it."""
        if isinstance(answer, int):
            return LETTERS[answer] if 0 <= answer < len(LETTERS) else ""
        return str(answer)

    def read(self, question: Question, answer: str) -> str:
        """The letter alone; or one that a full stop and a blank follow; or the only 'The answer is
        X' that something follows in its line. Anything else, or a letter that is no choice, is no
        answer."""
        letter = ""
        if len(answer) == 1 and answer in LETTERS:
            letter = answer
        elif len(answer) >= 3 and answer[0] in LETTERS and answer[1:3] == ". ":
            letter = answer[0]
        elif len(found := SAID.findall(answer)) == 1:
            letter = found[0]
        return letter if letter and letter in LETTERS[: question.facts["choices"]] else ""

    def submission(self, answered: Sequence[tuple[Question, str]]) -> dict[str, str]:
        """As ScienceQA's own scripts keep results: the place of each choice, -1 for none."""
        read = {question.id: self.read(question, answer) for question, answer in answered}
        places = {name: LETTERS.index(letter) if letter else -1 for name, letter in read.items()}
        outputs = {question.id: answer for question, answer in answered}
        return {".json": json.dumps({"results": places, "outputs": outputs}, indent=2)}

    def _numbers(self, file: Path, problems: dict[str, Any]) -> Iterable[str]:
        """The problems of the split, in its order."""
        if not (listed := file.with_name("pid_splits.json")).is_file():
            return [
                n for n, one in problems.items()
                if not self.split or (isinstance(one, dict) and one.get("split") == self.split)
            ]  # fmt: skip
        splits = official.read(listed)
        if not isinstance(splits, dict) or not splits:
            raise TaskError(f"{listed} holds no splits by name. --data wants {self.wanted}.")
        split = self.split or (
            "test" if "test" in splits or len(splits) != 1 else next(iter(splits))
        )
        if split not in splits:
            raise TaskError(f"{listed} has no split '{split}', but {', '.join(splits)}: --split.")
        return official.texts(splits, split, f"{listed}")

    def _question(self, number: str, problem: dict[str, Any], picture: Any, where: str) -> Question:
        choices = official.texts(problem, "choices", where)
        asked = official.field(problem, "question", str, where)
        hint = (official.perhaps(problem, "hint", str, where) or "").strip()
        if not 1 < len(choices) <= len(LETTERS):
            raise TaskError(
                f"{where} has {len(choices)} choices; 2 to {len(LETTERS)} can be asked."
            )
        answer = problem.get("answer")
        if answer is not None and answer not in range(len(choices)):
            raise TaskError(
                f"{where}: 'answer' must be the place of a choice, 0 to {len(choices) - 1}, found "
                f"{str(answer)[:60]}."
            )
        return Question(
            number,
            self._prompt(hint, asked, choices),
            picture,
            (LETTERS[answer],) if answer is not None else (),
            tuple(_groups(problem, hint, picture, where)),
            facts={"choices": len(choices)},
        )

    def _prompt(self, hint: str, asked: str, choices: Sequence[str]) -> str:
        """Context, question, multiple choices (CQM)."""
        if self.form == "options":
            options = " ".join(f"({a}) {b}" for a, b in zip(LETTERS, choices, strict=False))
            said = f"Context: {hint or 'N/A'}\nQuestion: {asked}\nOptions: {options}\n"
            return said.replace("  ", " ").strip()
        context = [f"Context: {hint}"] if hint else []
        options = [f"{a}. {b}" for a, b in zip(LETTERS, choices, strict=False)]
        last = [self.instruction] if self.instruction else []
        return "\n".join([*context, asked, *options, *last])


def _picture(file: Path, number: str, problem: dict[str, Any]) -> Path | None:
    where = f"{file}, problem {number}"
    if (name := official.perhaps(problem, "image", str, where)) is None:
        return None
    split = official.perhaps(problem, "split", str, where) or "test"
    places = [f"images/{split}/{number}", f"images/{number}", f"{split}/{number}", number]
    return official.picture(file.parent, name, places, where)


def _groups(problem: dict[str, Any], hint: str, picture: Any, where: str) -> Iterable[str]:
    """Subject, context (text, picture or neither) and grade."""
    if subject := SUBJECTS.get(official.perhaps(problem, "subject", str, where) or ""):
        yield subject
    if hint:
        yield "TXT"
    if picture is not None:
        yield "IMG"
    if not hint and picture is None:
        yield "NO"
    grade = str(problem.get("grade", "")).removeprefix("grade")
    if grade.isdigit():
        yield "G1-6" if int(grade) <= 6 else "G7-12"
