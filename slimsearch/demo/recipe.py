"""What the demo model is made of: its tokenizer, processor, network and rows of training tokens.

A row is one picture with all its questions as turns of one conversation; only the answers count
in its loss.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from slimsearch.demo.world import (
    CELL,
    COLOURS,
    CORNERS,
    PICTURE_SIZE,
    SHAPES,
    SIDE,
    Picture,
    pictures,
    text,
)

PATCH_SIZE = 8
VISUAL_TOKENS = (PICTURE_SIZE // PATCH_SIZE) ** 2
VOCABULARY = 768
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
UNKNOWN, BEGIN, END, PADDING, IMAGE = range(len(SPECIAL_TOKENS))
IGNORED = -100
MEAN, DEVIATION = 0.45, 0.25

DECODER = dict(
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=8,
    num_attention_heads=3,
    num_key_value_heads=3,
    head_dim=32,
)
VISION = dict(
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=3,
    projection_dim=96,
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} ASSISTANT:"
    "{% else %} "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)


# A LlavaForConditionalGeneration, whose annotations a type checker cannot follow.
Model = Any


@dataclass(frozen=True)
class Rows:
    """Padded token rows; a label is IGNORED wherever nothing is to be learned."""

    tokens: torch.Tensor
    labels: torch.Tensor
    pixels: torch.Tensor


def make_processor(seed: int) -> LlavaProcessor:
    """A processor whose byte-level BPE was trained on this world's own words."""
    corpus = text("training", 100_000, seed).split("\n")
    for picture in pictures("training", 3000, 6, seed):
        corpus += [
            f"USER: {question.text} ASSISTANT: {question.answer}" for question in picture.questions
        ]
    inner = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[UNKNOWN]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
    )
    size = {"height": PICTURE_SIZE, "width": PICTURE_SIZE}
    image_processor = CLIPImageProcessor(
        size=size,
        crop_size=size,
        do_center_crop=False,
        image_mean=[MEAN] * 3,
        image_std=[DEVIATION] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def make_model(seed: int) -> Model:
    """The network with fresh weights."""
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=dict(
                model_type="llama",
                vocab_size=VOCABULARY,
                max_position_embeddings=1024,
                rms_norm_eps=1e-6,
                tie_word_embeddings=True,
                bos_token_id=BEGIN,
                eos_token_id=END,
                pad_token_id=PADDING,
                initializer_range=0.05,
                **DECODER,
            ),
            vision_config=dict(
                model_type="clip_vision_model",
                image_size=PICTURE_SIZE,
                patch_size=PATCH_SIZE,
                **VISION,
            ),
            image_token_index=IMAGE,
            image_seq_length=VISUAL_TOKENS,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
    )


def picture_rows(shown: Sequence[Picture], tokenizer: PreTrainedTokenizerFast) -> Rows:
    """One row a picture: the picture, then its questions and answers turn by turn."""
    head = _encode(tokenizer, "USER: ")
    line_break = _encode(tokenizer, "\n")
    rows = []
    for picture in shown:
        tokens = [BEGIN, *head, *[IMAGE] * VISUAL_TOKENS, *line_break]
        labels = [IGNORED] * len(tokens)
        for number, question in enumerate(picture.questions):
            start = "USER: " if number else ""
            asked = _encode(tokenizer, f"{start}{question.text} ASSISTANT:")
            answer = (*_encode(tokenizer, f" {question.answer}"), END)
            tokens += [*asked, *answer]
            labels += [*[IGNORED] * len(asked), *answer]
        rows.append((tokens, labels))
    return Rows(
        _padded((tokens for tokens, _ in rows), PADDING),
        _padded((labels for _, labels in rows), IGNORED),
        pixel_values(shown),
    )


def pixel_values(shown: Sequence[Picture]) -> torch.Tensor:
    """What the image processor makes of the pictures, without its cost."""
    pixels = np.stack([np.asarray(picture.image) for picture in shown])
    scaled = (pixels.astype(np.float32) / 255 - MEAN) / DEVIATION
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()


def cell_words(shown: Sequence[Picture], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """For every visual token the three words for its cell: colour, shape and corner.

    An empty cell has padding for a colour and a shape. Shape: pictures, visual tokens, 3.
    """
    word = {
        word: _encode(tokenizer, f" {word}")[-1] for word in (*COLOURS, *SHAPES, *sum(CORNERS, ()))
    }
    cells = np.full((len(shown), SIDE, SIDE, 3), PADDING, np.int64)
    cells[..., 2] = [[word[corner] for corner in row] for row in CORNERS]
    for number, picture in enumerate(shown):
        for thing in picture.scene.things:
            cells[number, thing.row, thing.column, :2] = word[thing.colour], word[thing.shape]
    patches = cells.repeat(CELL // PATCH_SIZE, axis=1).repeat(CELL // PATCH_SIZE, axis=2)
    return torch.from_numpy(patches).flatten(1, 2)


def text_tokens(words: int, seed: int, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Training text as one long line of tokens."""
    lines = text("training", words, seed).split("\n")
    encoded = tokenizer([line + "\n" for line in lines])["input_ids"]
    return torch.tensor([token for line in encoded for token in line])


@lru_cache(maxsize=100_000)
def _encode(tokenizer: PreTrainedTokenizerFast, piece: str) -> tuple[int, ...]:
    return tuple(tokenizer(piece, add_special_tokens=False)["input_ids"])


def _padded(rows: Iterable[list[int]], filler: int) -> torch.Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler)
