"""Pairs and text as tokens: the chat template applied, answers marked, pictures looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from slimsearch.calibration import Pair, Turn
from slimsearch.checkpoint import Checkpoint
from slimsearch.decoding import Prompt, greedy
from slimsearch.errors import CalibrationError, ModelError
from slimsearch.loading import quiet_transformers, refused
from slimsearch.resident import Resident
from slimsearch.vlm import IGNORED, PROMPT, TEXT, VLM, Batch, batches_of

ANSWER_TOKENS = 32  # the most that the dense model says to a picture that came without text
PICTURES_AT_ONCE = 16


@dataclass(frozen=True)
class Speech:
    """How a checkpoint reads: its tokenizer and, for a model that sees, its processor."""

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

    def render(self, turns: Sequence[Turn], answered: int, pictured: bool = True) -> str:
        """The first `answered` turns whole, then the next question, if there is one, waiting."""
        messages: list[dict[str, Any]] = []
        for index, turn in enumerate(turns[: answered + 1]):
            picture = [{"type": "image"}] if pictured and index == 0 else []
            question = [*picture, {"type": "text", "text": turn.question}]
            messages.append({"role": "user", "content": question})
            if index < answered:
                answer = [{"type": "text", "text": turn.answer}]
                messages.append({"role": "assistant", "content": answer})
        more = answered < len(turns)
        if getattr(self.processor, "chat_template", None):
            return self.processor.apply_chat_template(messages, add_generation_prompt=more)  # pyright: ignore[reportOptionalMemberAccess]
        return _plain_template(messages, self.tokenizer.eos_token or "", more)

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
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def load(checkpoint: Checkpoint, sees: bool) -> Speech:
    """The tokenizer and processor of a checkpoint."""
    from transformers import AutoProcessor, AutoTokenizer

    with quiet_transformers(), refused(checkpoint):
        options = {"trust_remote_code": False, "local_files_only": True}
        if not sees:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, **options)
            return Speech(tokenizer, None, _ends(checkpoint, tokenizer))
        processor = AutoProcessor.from_pretrained(checkpoint.folder, **options)
    if not hasattr(processor, "image_processor"):
        raise ModelError(
            f"{checkpoint.folder} has no processor for pictures (preprocessor_config.json, "
            f"processor_config.json). Copy both from the original model."
        )
    tokenizer = processor.tokenizer
    return Speech(tokenizer, processor, _ends(checkpoint, tokenizer))


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
        shown = torch.cat([pixels(speech, pair) for pair in some])
        for pair, features in zip(some, vlm.see(shown).split(1), strict=True):
            answered = _answered(vlm, speech, pair, features)
            row = _row(vlm, speech, answered, features)
            rows.append(replace(row, source=source, origins=(pair.origin,)))
    return list(batches_of(rows, most_tokens, speech.padding))


def answered(vlm: VLM, speech: Speech, pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs, what has no answer answered by this model; for another one to learn."""
    return [
        _answered(vlm, speech, pair, vlm.see(pixels(speech, pair)))
        if any(turn.answer is None for turn in pair.turns)
        else pair
        for pair in pairs
    ]


def pixels(speech: Speech, pair: Pair) -> Tensor:
    """A pair's picture as the vision tower takes it, [1, channels, height, width]."""
    assert speech.processor is not None
    found = speech.processor.image_processor(pair.open(), return_tensors="pt")["pixel_values"]
    return found.reshape(-1, *found.shape[-3:])


def question_ids(
    speech: Speech, turns: Sequence[Turn], picture_token: int, count: int
) -> list[int]:
    """A conversation up to its last question, the picture's place held by `count` tokens; with
    `count` 0 there is no picture."""
    text = speech.render(turns, len(turns) - 1, pictured=count > 0)
    return _ids(speech, text, picture_token, count)


def _row(vlm: VLM, speech: Speech, pair: Pair, features: Tensor) -> Batch:
    """One conversation; turns at its end are dropped until the model can read it whole."""
    longest = getattr(vlm.model.config.get_text_config(), "max_position_embeddings", 1 << 30)
    ids: list[int] = []
    for count in range(len(pair.turns), 0, -1):
        ids, owner = _spoken(vlm, speech, pair.turns[:count], features.shape[1])
        if len(ids) <= longest:
            return _batch(ids, owner, features, vlm.device)
    raise CalibrationError(
        f"{pair.origin} makes {len(ids)} tokens; this model reads {longest} at most. Shorten it."
    )


def _spoken(
    vlm: VLM, speech: Speech, turns: Sequence[Turn], width: int
) -> tuple[list[int], list[int]]:
    """Tokens of a whole conversation, and for each token the answer it belongs to, or -1."""
    text, end = speech.render(turns, len(turns)), speech.tokenizer.eos_token or ""
    if end and not text.rstrip().endswith(end):
        text = text.rstrip() + end
    ids = _ids(speech, text, vlm.picture_token, width)
    owner = [-1] * len(ids)
    for k, turn in enumerate(turns):
        asked = text[: _agreeing(text, speech.render(turns, k))]
        stop = text.index(turn.answer or "", len(asked)) + len(turn.answer or "")
        stop += len(end) if text.startswith(end, stop) else 0
        first = len(_ids(speech, asked, vlm.picture_token, width))
        last = len(_ids(speech, text[:stop], vlm.picture_token, width))
        owner[first:last] = [k] * (last - first)
    return ids, owner


def _agreeing(a: str, b: str) -> int:
    """How many letters two texts begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((place for place, (x, y) in pairs if x != y), min(len(a), len(b)))


def _batch(ids: list[int], owner: list[int], features: Tensor, device: torch.device) -> Batch:
    tokens = torch.tensor([ids], device=device)
    turns = torch.tensor([[*owner[1:], -1]], device=device)  # of the token that follows
    follows = torch.tensor([[*ids[1:], IGNORED]], device=device)
    spoken = torch.tensor([owner], device=device) >= 0
    return Batch(
        ids=tokens,
        targets=torch.where(turns >= 0, follows, IGNORED),
        classes=torch.where(spoken, TEXT, PROMPT).to(torch.uint8),
        turns=turns,
        features=features,
    )


def _ids(speech: Speech, text: str, picture_token: int, count: int) -> list[int]:
    """Tokens of a rendered conversation with every picture place widened to `count` tokens."""
    place = speech.tokenizer.convert_ids_to_tokens(picture_token)
    begins = speech.tokenizer.bos_token
    marked = bool(begins) and text.startswith(begins)
    wide = text.replace(place, place * count)
    return speech.tokenizer(wide, add_special_tokens=not marked, verbose=False)["input_ids"]


def _answered(vlm: VLM, speech: Speech, pair: Pair, features: Tensor) -> Pair:
    """The pair with every missing answer filled in by the model's own greedy one."""
    if all(turn.answer is not None for turn in pair.turns):
        return pair
    assert vlm.projector is not None
    with torch.no_grad():
        projected = vlm.projector(features)[0].float().cpu().numpy()
    turns: list[Turn] = []
    for turn in pair.turns:
        answer = turn.answer
        if answer is None:
            asked = [*turns, Turn(turn.question, None)]
            ids = question_ids(speech, asked, vlm.picture_token, len(projected))
            prompt = Prompt(ids, projected, vlm.picture_token)
            (said,) = greedy(Resident(vlm), [prompt], speech.ends, ANSWER_TOKENS)
            answer = speech.decode(said).strip()
        turns.append(Turn(turn.question, answer))
    return Pair(pair.origin, pair.picture, tuple(turns))


def _plain_template(messages: list[dict[str, Any]], end: str, more: bool) -> str:
    """LLaVA 1.5's own form, for a checkpoint that brings no template."""
    parts = []
    for message in messages:
        text = "".join(
            "<image>\n" if part["type"] == "image" else part["text"] for part in message["content"]
        )
        parts.append(f"USER: {text}" if message["role"] == "user" else f" ASSISTANT: {text}{end}")
    return "".join(parts) + (" ASSISTANT:" if more else "")
