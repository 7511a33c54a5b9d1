"""Asks an exported model questions, in whichever engine: pictures and prompts in, answers out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy import ndarray
from PIL.Image import Image

from slimsearch import artefact, plugins
from slimsearch.artefact import Artefact
from slimsearch.calibration import Pair, Turn
from slimsearch.contracts import Runtime, Session
from slimsearch.errors import InputError, SettingsError
from slimsearch.model import conversation
from slimsearch.model.conversation import Shown, Speech
from slimsearch.model.decoding import Prompt, Reading

AUTO = "auto"
PLACING = "torch"  # lets blocks lie where there is room
PREFERRED = (
    "native",
    "torch",
    "onnxruntime",
    "openvino",
    "deepsparse",
)  # what 'auto' tries, in order


@dataclass
class Talk:
    """One conversation: a picture or none, and what was said so far."""

    picture: Path | Image | None = None
    turns: list[Turn] = field(default_factory=list)
    shown: Shown | None = None  # the picture as the processor prepares it
    features: ndarray | None = None  # what stands for it, once it was looked at
    origin: str = "--image"  # what named the picture, for an error


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: tuple[int, ...]  # without the one that ends it
    ended: bool  # by the model, not by a limit


Hearer = Callable[[int, str], None]  # called with (conversation, piece of text) as it is said


def asked(
    prompts: Sequence[str], pictures: Sequence[Path], batch: Path | None
) -> list[tuple[Talk, list[str]]]:
    """Conversations and their questions: the same ones about every picture, or a file of lines."""
    if batch is not None:
        if prompts or pictures:
            raise SettingsError("--batch names pictures and prompts itself; give it alone.")
        return _lines(batch)
    if not prompts:
        raise SettingsError("Say what to ask: --prompt 'your question', or --batch FILE.")
    return [(Talk(picture), list(prompts)) for picture in pictures or [None]]


class Speaker:
    """An opened export that answers."""

    def __init__(self, session: Session, speech: Speech, picture_token: int | None):
        self.session, self._speech, self._picture_token = session, speech, picture_token
        self._reading = Reading(session)

    def ask(
        self,
        talks: Sequence[Talk],
        questions: Sequence[str],
        most: int,
        hear: Hearer = lambda talk, piece: None,
    ) -> list[Answer]:
        """Puts one question to each conversation, all side by side, and goes on with them."""
        for talk, question in zip(talks, questions, strict=True):
            talk.turns.append(Turn(question, None))
        prompts = [self.prompt(talk) for talk in talks]
        pieces = [_Pieces(self._speech) for _ in talks]

        def heard(row: int, token: int) -> None:
            if token not in self._speech.ends and (piece := pieces[row].add(token)):
                hear(row, piece)

        answers = []
        said = self._reading.say(prompts, self._speech.ends, most, heard)
        for row, (talk, tokens) in enumerate(zip(talks, said, strict=True)):
            ended = tokens[-1] in self._speech.ends
            kept = tokens[:-1] if ended else tokens
            text = self._speech.decode(kept).strip()
            if piece := pieces[row].rest(text):
                hear(row, piece)
            talk.turns[-1] = Turn(talk.turns[-1].question, text)
            answers.append(Answer(text, tuple(kept), ended))
        return answers

    def answered(self, talk: Talk, question: str, answer: str) -> tuple[Prompt, int]:
        """A conversation with this question and its answer, and where the answer begins."""
        asked = replace(talk, turns=[*talk.turns, Turn(question, None)])
        prompt = self.prompt(asked)
        turns = [*talk.turns, Turn(question, answer)]
        if self._picture_token is None:
            more = self._speech.tokenizer(answer, add_special_tokens=False)["input_ids"]
            return Prompt([*prompt.ids, *more]), len(prompt.ids)
        ids = conversation.answered_ids(self._speech, turns, asked.shown)
        same = next(
            (n for n, (a, b) in enumerate(zip(prompt.ids, ids, strict=False)) if a != b),
            min(len(prompt.ids), len(ids)),
        )
        return replace(prompt, ids=ids), same

    def prompt(self, talk: Talk) -> Prompt:
        """A conversation up to its last question, as the decoder reads it."""
        if self._picture_token is None:
            if talk.picture is not None:
                raise InputError(f"This model reads text only; leave out --image {talk.picture}.")
            return Prompt(self._speech.text_ids(talk.turns))
        if talk.picture is not None and talk.shown is None:
            talk.shown = self._speech.show(Pair(talk.origin, talk.picture, ()).open())
        ids = conversation.question_ids(self._speech, talk.turns, talk.shown)
        if talk.shown is None:
            return Prompt(ids)
        if not talk.shown.plain or self._speech.architecture.marks:
            return Prompt(ids, shown=talk.shown.inputs)
        if talk.features is None:
            pixels = talk.shown.inputs["pixel_values"].numpy()
            talk.features = np.concatenate(list(self.session.see(pixels)))
        return Prompt(ids, talk.features, self._picture_token)


def open(
    folder: Path,
    runtime: str = AUTO,
    threads: int = 0,
    choices: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, Speaker]:
    """Brings an export into an engine; the engine's name and what answers from it.

    `choices` are for fields of engines that are called like them.
    """
    found = artefact.find(folder)
    speech = conversation.load(found.checkpoint)
    name, engine = _engine(found, runtime, choices)
    return name, Speaker(engine.open(folder, threads), speech, found.picture_token)


def engine_of(folder: Path, runtime: str, choices: Mapping[str, str]) -> str:
    """The name of the engine that `open` would take."""
    return _engine(artefact.find(folder), runtime, choices)[0]


class _Pieces:
    """Text as it grows, token by token: only whole letters, no space before or after."""

    def __init__(self, speech: Speech):
        self._speech, self._tokens, self._shown = speech, [], ""

    def add(self, token: int) -> str:
        self._tokens.append(token)
        whole = self._speech.decode(self._tokens).strip()
        if whole.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        return self.rest(whole)

    def rest(self, whole: str) -> str:
        """What is still to be shown of a text, though it ends in half a letter."""
        if not whole.startswith(self._shown):
            return ""
        piece, self._shown = whole[len(self._shown) :], whole
        return piece


def _placing(name: str) -> str:
    """The runtime that places blocks, where none or that one is asked for."""
    if name not in (AUTO, PLACING):
        raise SettingsError(
            f"--device-map goes with --runtime {PLACING}; {name} maps its weights by itself. Leave "
            f"one of them out."
        )
    return PLACING


def _lines(file: Path) -> list[tuple[Talk, list[str]]]:
    """Lines of {"image": FILE, "prompt": TEXT or [TEXT, ...]}; as many prompts in each."""
    try:
        lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}.") from None
    found: list[tuple[Talk, list[str]]] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            said, shown = entry["prompt"], entry.get("image")
            prompts = [said] if isinstance(said, str) else list(said)
            good = prompts and all(isinstance(prompt, str) for prompt in prompts)
            talk = Talk(None if shown is None else file.parent / shown)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            good, talk, prompts = False, Talk(), []
        if not good or len(prompts) != len((found or [(talk, prompts)])[0][1]):
            raise InputError(
                f'{file}, line {number}: each line is {{"image": FILE, "prompt": TEXT}}; a list of '
                f"prompts is a conversation, and all lines have as many."
            )
        found.append((talk, prompts))
    if not found:
        raise InputError(f"{file} holds no lines.")
    return found


def _engine(found: Artefact, name: str, choices: Mapping[str, str]) -> tuple[str, Runtime]:
    """The runtime asked for, or the first that is here and reads what the folder holds."""
    known = plugins.names("runtimes")
    if choices.get("device_map"):
        name = _placing(name)
    if name != AUTO:
        engine: Runtime = plugins.make("runtimes", name, choices)
        if reason := engine.absent():
            raise SettingsError(reason)
        return name, engine
    reasons = []
    for name in sorted(known, key=lambda n: (*PREFERRED, n).index(n)):
        engine = plugins.make("runtimes", name, choices)
        if any(found.holds(form) for form in engine.forms):
            if (reason := engine.absent()) is None:
                return name, engine
            reasons.append(reason)
    raise InputError(
        f"{found.folder} holds nothing that an engine here can run. "
        f"{' '.join(reasons) or 'slimsearch export MODEL --to hf --out FOLDER writes a whole one.'}"
    )
