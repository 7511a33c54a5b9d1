"""How well the demo model answers and reads: greedy exact match, and perplexity of text."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import LlavaProcessor, PreTrainedTokenizerFast

from slimsearch.demo.recipe import Model
from slimsearch.demo.world import Picture

LONGEST_ANSWER = 5


@torch.no_grad()
def accuracy(
    model: Model,
    processor: LlavaProcessor,
    shown: Sequence[Picture],
    batch: int = 64,
) -> dict[str, float]:
    """The share of questions answered word for word, over "all" and by kind of question.

    Every question is asked on its own. Prompts of one length go together, so nothing is padded.
    """
    by_length: dict[int, list] = defaultdict(list)
    for picture in shown:
        pixels = processor.image_processor(picture.image, return_tensors="pt")["pixel_values"]
        for question in picture.questions:
            prompt = f"<s>USER: <image>\n{question.text} ASSISTANT:"
            tokens = processor(images=picture.image, text=prompt)["input_ids"][0]
            by_length[len(tokens)].append((tokens, pixels[0], question))
    right: dict[str, list[bool]] = defaultdict(list)
    for items in by_length.values():
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            made = _answers(model, processor, part)
            for (_, _, question), answer in zip(part, made, strict=True):
                for kind in ("all", question.kind):
                    right[kind].append(answer == question.answer)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


@torch.no_grad()
def perplexity(
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    length: int = 128,
) -> float:
    """Perplexity a token over the text cut into segments of `length` tokens."""
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    segments = tokens[: len(tokens) // length * length].view(-1, length)
    total = 0.0
    for part in segments.split(32):
        logits = model(input_ids=part).logits.float()
        total += functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
        ).item()
    return math.exp(total / (len(segments) * (length - 1)))


def _answers(model: Model, processor: LlavaProcessor, part: Sequence[tuple]) -> list[str]:
    tokens = torch.tensor([item[0] for item in part])
    pixels = torch.stack([item[1] for item in part]).to(model.dtype)
    made = model.generate(
        input_ids=tokens,
        pixel_values=pixels,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=LONGEST_ANSWER,
        do_sample=False,
    )
    decoded = processor.batch_decode(made[:, tokens.shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in decoded]
