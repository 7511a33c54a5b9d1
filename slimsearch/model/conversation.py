"""Pairs and text as tokens: the chat template applied, answers marked, pictures looked at once.

The model's own processor says what a picture is to the model and what stands for it in the text:
one token again and again, rows that end in a mark, tiles each under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from slimsearch.calibration import Pair, Turn
from slimsearch.contracts import Architecture
from slimsearch.errors import CalibrationError, InputError, ModelError
from slimsearch.model import senses
from slimsearch.model.batch import IGNORED, Batch, batches_of
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.confining import COPY, confined
from slimsearch.model.decoding import Prompt, greedy
from slimsearch.model.loading import architecture_of, config_of, quiet_transformers, refused
from slimsearch.model.resident import Resident
from slimsearch.model.sight import Look
from slimsearch.model.vlm import VLM
from slimsearch.routes.kinds import PROMPT, TEXT

SPOKEN = {
    "input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels",
    "text_replacement_offsets",
}  # what a processor makes of text  # fmt: skip
ANSWER_TOKENS = 32  # the most that the dense model says to a picture that came without text
PICTURES_AT_ONCE = 16
READ = "tokenizer.json and tokenizer_config.json"
LOOKED = f"processor_config.json, preprocessor_config.json, {READ}"
TRIED = (64, 48)  # the size of a picture to try the processor with
TRIAL = Turn("What is it?", "A trial.")  # to try the chat template with


@dataclass(frozen=True)
class Shown:
    """A picture as the processor prepares it."""

    inputs: Mapping[str, Tensor]  # of the model
    text: str  # what stands for it in a conversation

    @property
    def plain(self) -> bool:
        """Whether it is whole pictures or tiles of one size and nothing beside."""
        return set(self.inputs) == {"pixel_values"} and self.inputs["pixel_values"].ndim == 4


@dataclass(frozen=True)
class Speech:
    """How a checkpoint reads: its tokenizer and, for a model that sees, its processor."""

    architecture: Architecture
    tokenizer: Any
    processor: Any | None
    ends: frozenset[int] = frozenset()  # tokens that end an answer

    @property
    def padding(self) -> int:
        return self.tokenizer.pad_token_id or 0

    def tokens(self, text: str) -> list[int]:
        """A stream of text as ids, with the tokenizer's own special tokens."""
        return self.tokenizer(text, verbose=False)["input_ids"]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def show(self, picture: Image.Image) -> Shown:
        """What the model is given for a picture."""
        assert self.processor is not None
        try:
            made = self.processor(
                images=[picture],
                text=[self.processor.image_token],
                return_tensors="pt",
                return_text_replacement_offsets=True,
            )
        except TypeError as error:  # it counts with numbers that nobody gave it
            raise ModelError(
                f"{type(self.processor).__name__} cannot make a picture into tokens ({error}). "
                f"Most often processor_config.json, or its patch_size, is missing from the model's "
                f"folder: copy it from the original model."
            ) from error
        (place,) = made["text_replacement_offsets"][0]
        inputs = {name: value for name, value in made.items() if name not in SPOKEN}
        return Shown(inputs, place["replacement"])

    def render(self, turns: Sequence[Turn], answered: int, pictured: bool = True) -> str:
        """The first `answered` turns whole, then the next question, if there is one, waiting."""
        messages: list[dict[str, Any]] = []
        assert self.processor is not None
        for index, turn in enumerate(turns[: answered + 1]):
            if self.processor.image_token in turn.question:
                raise InputError(
                    f"The question {turn.question!r:.80} holds {self.processor.image_token!r}, "
                    f"which stands for a picture to this model. Leave it out: the chat template "
                    f"puts it where it belongs."
                )
            picture = [{"type": "image"}] if pictured and index == 0 else []
            question = [*picture, {"type": "text", "text": turn.question}]
            messages.append({"role": "user", "content": question})
            if index < answered:
                answer = [{"type": "text", "text": turn.answer}]
                messages.append({"role": "assistant", "content": answer})
        with confined():
            return self.processor.apply_chat_template(
                messages,
                chat_template=self.processor.chat_template or self.architecture.template,
                add_generation_prompt=answered < len(turns),
            )

    def text_ids(self, turns: Sequence[Turn]) -> list[int]:
        """A text-only conversation up to its last question; one after the other where the
        tokenizer has no chat template."""
        if not self.tokenizer.chat_template:
            said = [part for turn in turns for part in (turn.question, turn.answer) if part]
            return self.tokens("\n".join(said))
        messages = [
            {"role": role, "content": part}
            for turn in turns
            for role, part in (("user", turn.question), ("assistant", turn.answer))
            if part is not None
        ]
        with confined():
            text = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def load(checkpoint: Checkpoint) -> Speech:
    """The tokenizer and processor of a checkpoint."""
    from transformers import AutoTokenizer

    architecture = architecture_of(checkpoint)
    with quiet_transformers(), refused(checkpoint, LOOKED if architecture.sees else READ):
        if not architecture.sees:
            tokenizer = AutoTokenizer.from_pretrained(
                checkpoint.folder, trust_remote_code=False, local_files_only=True
            )
            return Speech(architecture, tokenizer, None, _ends(checkpoint, tokenizer))
        processor = senses.processor(checkpoint)
    if not hasattr(processor, "image_processor"):
        raise ModelError(
            f"{checkpoint.folder} has no processor for pictures (preprocessor_config.json, "
            f"processor_config.json). Copy both from the original model."
        )
    ends = _ends(checkpoint, processor.tokenizer)
    speech = Speech(architecture, processor.tokenizer, processor, ends)
    _check_template(checkpoint, speech)
    _check_picture_token(checkpoint, speech)
    return speech


def _check_template(checkpoint: Checkpoint, speech: Speech) -> None:
    """Tries the chat template, which is a program of the checkpoint's, run in a sandbox."""
    try:
        said = speech.render([TRIAL], 1)
    except ModelError as error:  # it takes too much
        raise ModelError(f"{checkpoint.folder}: {error}") from error
    except Exception as error:  # whatever a template can do wrong
        raise ModelError(
            f"{checkpoint.folder}: its chat template fails ({type(error).__name__}: {error}). "
            f"{COPY}"
        ) from error
    if any(part not in said for part in (TRIAL.question, TRIAL.answer or "")):
        raise ModelError(
            f"{checkpoint.folder}: its chat template makes {said!r:.80} of the question "
            f"{TRIAL.question!r} and the answer {TRIAL.answer!r}: not both are in it. {COPY}"
        )


def _check_picture_token(checkpoint: Checkpoint, speech: Speech) -> None:
    """Has a small picture shown: what stands for it must be what the model takes for pictures."""
    wanted = config_of(checkpoint).image_token_id
    with refused(checkpoint):
        shown = speech.show(Image.new("RGB", TRIED))
    ids = speech.tokenizer(shown.text, add_special_tokens=False, verbose=False)["input_ids"]
    if wanted not in ids:
        mark = speech.processor.image_token if speech.processor else ""
        found = sorted(set(ids))[:8]
        raise ModelError(
            f"{checkpoint.folder}: config.json takes token {wanted} for a picture's "
            f"(image_token_index or image_token_id), and the processor puts {mark!r} there, which "
            f"its tokenizer makes into {', '.join(map(str, found)) or 'nothing'}. Correct the one "
            f"that is wrong, or copy config.json, tokenizer and processor from the same model."
        )


def _ends(checkpoint: Checkpoint, tokenizer: Any) -> frozenset[int]:
    """As transformers' generate has them: from the generation config, or else the model's."""
    config = checkpoint.config
    for facts in (checkpoint.generation, config.get("text_config", {}), config):
        if (found := facts.get("eos_token_id")) is not None:
            return frozenset(found if isinstance(found, list) else [found])
    found = tokenizer.eos_token_id
    return frozenset() if found is None else frozenset([found])


def text_batches(
    segments: Tensor, device: torch.device, most_tokens: int, source: str = "text"
) -> list[Batch]:
    """Segments [count, length] of text; every token but the first is predicted."""
    rows = max(1, most_tokens // segments.shape[1])
    batches = []
    for ids in segments.to(device).split(rows) if len(segments) else ():
        targets = torch.full_like(ids, IGNORED)
        targets[:, :-1] = ids[:, 1:]
        classes = torch.full_like(ids, TEXT, dtype=torch.uint8)
        batches.append(Batch(ids, targets, classes, torch.zeros_like(ids), source=source))
    return batches


def pair_batches(
    vlm: VLM, speech: Speech, pairs: Sequence[Pair], most_tokens: int, source: str = "pairs"
) -> list[Batch]:
    """Pairs as batches of conversations; pictures without text get the model's own answers."""
    rows: list[Batch] = []
    for start in range(0, len(pairs), PICTURES_AT_ONCE):
        some = pairs[start : start + PICTURES_AT_ONCE]
        pictures = [speech.show(pair.open()) for pair in some]
        assert vlm.sight is not None
        looks = vlm.sight.look([shown.inputs for shown in pictures])
        for pair, shown, look in zip(some, pictures, looks, strict=True):
            answered = _answered(vlm, speech, pair, shown)
            row = _row(vlm, speech, answered, shown, look)
            rows.append(replace(row, source=source, origins=(pair.origin,)))
    return list(batches_of(rows, most_tokens, speech.padding))


def answered(vlm: VLM, speech: Speech, pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs, what has no answer answered by this model; for another one to learn."""
    return [
        _answered(vlm, speech, pair, speech.show(pair.open()))
        if any(turn.answer is None for turn in pair.turns)
        else pair
        for pair in pairs
    ]


def question_ids(speech: Speech, turns: Sequence[Turn], shown: Shown | None) -> list[int]:
    """A conversation up to its last question, about a picture or none."""
    text = speech.render(turns, len(turns) - 1, pictured=shown is not None)
    return _tokenized(speech, text, shown)["input_ids"]


def answered_ids(speech: Speech, turns: Sequence[Turn], shown: Shown | None) -> list[int]:
    """The same with the last question's answer behind it, up to the answer's last letter."""
    text = speech.render(turns, len(turns), pictured=shown is not None)
    answer = turns[-1].answer or ""
    return _tokenized(speech, text[: text.rindex(answer) + len(answer)], shown)["input_ids"]


def _row(vlm: VLM, speech: Speech, pair: Pair, shown: Shown, look: Look) -> Batch:
    """One conversation; turns at its end are dropped until the model can read it whole."""
    longest = getattr(vlm.model.config.get_text_config(), "max_position_embeddings", 1 << 30)
    length, fits = 0, 0
    beyond = 1 + min(len(pair.turns), speech.architecture.most_turns or longest, longest)
    while beyond - fits > 1:  # the first `fits` turns fit, the first `beyond` do not
        count = beyond - 1 if not length else (fits + beyond) // 2
        length = _length(speech, pair.turns[:count], shown)
        fits, beyond = (count, beyond) if length <= longest else (fits, count)
    if not fits:
        raise CalibrationError(
            f"{pair.origin} makes {length} tokens; this model reads {longest} at most. Shorten it."
        )
    ids, owner = _spoken(speech, replace(pair, turns=pair.turns[:fits]), shown)
    return _batch(ids, owner, look, vlm.device)


def _length(speech: Speech, turns: Sequence[Turn], shown: Shown) -> int:
    """How many tokens a whole conversation takes."""
    text, _ = _ended(speech, speech.render(turns, len(turns)))
    return len(_tokenized(speech, text, shown)["input_ids"])


def _spoken(speech: Speech, pair: Pair, shown: Shown) -> tuple[list[int], list[int]]:
    """Tokens of a whole conversation, and for each token the answer it belongs to, or -1."""
    turns = pair.turns
    text, end = _ended(speech, speech.render(turns, len(turns)))
    ids, places = _placed(speech, text, shown)
    owner = [-1] * len(ids)
    for k, turn in enumerate(turns):
        first = _agreeing(text, speech.render(turns, k))
        answer = turn.answer or ""
        if (begins := text.find(answer, first)) < 0:
            raise CalibrationError(
                f"{pair.origin}: the model's chat template leaves out or changes the answer "
                f"{answer!r:.80}. Write it otherwise, or drop the record."
            )
        last = begins + len(answer)
        last += len(end) if text.startswith(end, last) else 0
        for token, (start, stop) in enumerate(places):
            if start < last and stop > first:
                owner[token] = k
    return ids, owner


def _ended(speech: Speech, text: str) -> tuple[str, str]:
    """A conversation with what ends its answers at its end, and what that is."""
    known = [str(token) for token in speech.tokenizer.added_tokens_decoder.values()]
    behind = [token for token in known if text.rstrip().endswith(token)]
    if behind:
        return text, max(behind, key=len)
    end = speech.tokenizer.eos_token or ""
    return text.rstrip() + end, end


def _placed(speech: Speech, text: str, shown: Shown) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of a conversation, and where each one's letters stand in its text."""
    made = _tokenized(speech, text, shown, return_offsets_mapping=True)
    mark = speech.processor.image_token if speech.processor else ""
    picture, wider = text.find(mark), len(shown.text) - len(mark)

    def back(letter: int) -> int:
        return letter if picture < 0 or letter <= picture else max(picture, letter - wider)

    return made["input_ids"], [(back(start), back(stop)) for start, stop in made["offset_mapping"]]


def _agreeing(a: str, b: str) -> int:
    """How many letters two texts begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((place for place, (x, y) in pairs if x != y), min(len(a), len(b)))


def _batch(ids: list[int], owner: list[int], look: Look, device: torch.device) -> Batch:
    tokens = torch.tensor([ids], device=device)
    turns = torch.tensor([[*owner[1:], -1]], device=device)  # of the token that follows
    follows = torch.tensor([[*ids[1:], IGNORED]], device=device)
    spoken = torch.tensor([owner], device=device) >= 0
    return Batch(
        ids=tokens,
        targets=torch.where(turns >= 0, follows, IGNORED),
        classes=torch.where(spoken, TEXT, PROMPT).to(torch.uint8),
        turns=turns,
        looks=(look,),
    )


def _tokenized(speech: Speech, text: str, shown: Shown | None, **more: bool) -> Mapping[str, Any]:
    """A rendered conversation with the picture in its place, as the tokenizer has it."""
    begins = speech.tokenizer.bos_token
    marked = bool(begins) and text.startswith(begins)
    if shown is not None and speech.processor is not None:
        text = text.replace(speech.processor.image_token, shown.text, 1)
    return speech.tokenizer(text, add_special_tokens=not marked, verbose=False, **more)


def _answered(vlm: VLM, speech: Speech, pair: Pair, shown: Shown) -> Pair:
    """The pair with every missing answer filled in by the model's own greedy one."""
    turns: list[Turn] = []
    session = Resident(vlm)
    for turn in pair.turns[: speech.architecture.most_turns]:
        answer = turn.answer
        if answer is None:
            asked = [*turns, Turn(turn.question, None)]
            prompt = Prompt(question_ids(speech, asked, shown), shown=shown.inputs)
            (said,) = greedy(session, [prompt], speech.ends, ANSWER_TOKENS)
            answer = speech.decode(said).strip()
        turns.append(Turn(turn.question, answer))
    return Pair(pair.origin, pair.picture, tuple(turns))
