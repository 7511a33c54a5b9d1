"""Random models of a few thousand weights, made offline in a fraction of a second, as folders.

They understand nothing, but they are whole: weights, configuration, tokenizer, processor and chat
template, as save_pretrained leaves them. Beside them, small pictures, pairs and text.
"""

import json
import random
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from slimsearch.record import journal
from slimsearch.record.candidate import Round
from slimsearch.record.journal import Record
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
BEGIN, END, PADDING, IMAGE = 1, 2, 3, 4
VOCABULARY = 320
PICTURE_SIZE, PATCH_SIZE = 16, 8
VISUAL_TOKENS = (PICTURE_SIZE // PATCH_SIZE) ** 2
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:{% else %} "
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
OLD_NAMES = {  # as llava-hf/llava-1.5-7b-hf has them on disk
    "model.language_model.": "language_model.model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.vision_tower.": "vision_tower.",
    "lm_head.": "language_model.lm_head.",
}


def llava(
    folder: Path,
    *,
    blocks: int = 2,
    heads: int = 4,
    kv_heads: int = 4,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    old_names: bool = False,
    seed: int = 0,
    width: int = 32,
    side: int = 2,
) -> Path:
    """A LLaVA of 2 blocks and `side` x `side` tokens a picture."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            text_config={"model_type": "llama", **_decoder(blocks, heads, kv_heads, tied, width)},
            vision_config={
                "model_type": "clip_vision_model", "image_size": side * PATCH_SIZE,
                "patch_size": PATCH_SIZE, "hidden_size": 16, "intermediate_size": 32,
                "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16,
            },
            image_token_index=IMAGE,
            image_seq_length=side**2,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=tied,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "vision_tower" in name:
                weight.mul_(8)  # so that pictures differ after two layers
            if "multi_modal_projector" in name and weight.ndim == 2:
                weight.normal_(0, 0.2)
    _save(model, folder, dtype, shards, OLD_NAMES if old_names else {})
    _processor(side).save_pretrained(folder)
    _processor(side).image_processor.save_pretrained(folder)
    return folder


def llama(
    folder: Path,
    *,
    blocks: int = 2,
    heads: int = 4,
    kv_heads: int = 4,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    seed: int = 0,
) -> Path:
    """A text-only LLaMA of 2 blocks."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**_decoder(blocks, heads, kv_heads, tied)))
    _save(model, folder, dtype, shards, {})
    tokenizer().save_pretrained(folder)
    return folder


def picture(number: int) -> Image.Image:
    """A square of one colour on another, both following from the number."""
    shown = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), COLOURS[number % len(COLOURS)])
    inner = COLOURS[(number // len(COLOURS) + number + 1) % len(COLOURS)]
    left, top = number % 7, number // 7 % 7
    ImageDraw.Draw(shown).rectangle((left, top, left + 6, top + 6), fill=inner)
    return shown


def pairs(folder: Path, count: int = 20, *, turns: int = 6) -> Path:
    """A LLaVA-style JSON of `count` pictures with `turns` questions and answers each."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(count):
        picture(number).save(folder / f"{number}.png")
        said = []
        for turn in range(turns):
            place = "<image>\n" if turn == 0 else ""
            asked = ("What colour is it?", "And around that, in the whole picture?")[turn % 2]
            answer = COLOURS[(number + turn) % len(COLOURS)] + " and more" * ((number + turn) % 3)
            said += [{"from": "human", "value": place + asked}, {"from": "gpt", "value": answer}]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": said})
    file = folder / "pairs.json"
    file.write_text(json.dumps(records), "utf-8")
    return file


def text(file: Path, words: int = 2000, seed: int = 0) -> Path:
    """A text file of made-up sentences."""
    file.write_text(prose(words, seed), "utf-8")
    return file


def prose(words: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    vocabulary = (*COLOURS, "the", "a", "square", "is", "of", "in", "picture", "and", "more")
    said = [draw.choice(vocabulary) + ("." if draw.random() < 0.1 else "") for _ in range(words)]
    return " ".join(said) + "\n"


def settings(model: Path, pairs_file: Path | str, text_file: Path) -> Settings:
    """A search of a second on such a model."""
    return Settings(
        model=str(model), calibration=str(text_file), pairs=str(pairs_file), pair_count=14,
        segments=4, segment_length=24, rounds=2, candidates=4, survivors=3, finalists=2,
        projector_steps=2, final_steps=3, projector_rate=1e-3, batch_tokens=200, device="cpu",
        policy="per_matrix", dtype="float32",
    )  # fmt: skip


class Notes(Watch):
    """Keeps what a user would have been told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.rounds: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def closed(self, done: Round) -> None:
        self.rounds.append(done.index)


def records(run: Path) -> list[Record]:
    """What stands in a run's journal."""
    return journal.read(run / "journal.jsonl")[0]


@cache
def flip(file: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that, like LLaMA's, puts <s> before every text."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator([prose(500), "USER: What colour is it? ASSISTANT:"] * 3, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BEGIN)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
    )


@cache
def _processor(side: int) -> LlavaProcessor:
    size = {"height": side * PATCH_SIZE, "width": side * PATCH_SIZE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False),
        tokenizer=tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=TEMPLATE,
    )


def _decoder(blocks: int, heads: int, kv_heads: int, tied: bool, width: int = 32) -> dict:
    return {
        "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 48,
        "num_hidden_layers": blocks, "num_attention_heads": heads, "head_dim": width // heads,
        "num_key_value_heads": kv_heads, "max_position_embeddings": 256,
        "tie_word_embeddings": tied, "initializer_range": 0.2,
        "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PADDING,
    }  # fmt: skip


def _save(
    model: torch.nn.Module, folder: Path, dtype: torch.dtype, shards: int, names: dict[str, str]
) -> None:
    """The folder as save_pretrained leaves it; keys and shards as this module wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype)
    model.config.dtype = dtype
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tensors = {}
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        start = next((start for start in names if key.startswith(start)), "")
        tensors[names.get(start, "") + key.removeprefix(start)] = weight.contiguous()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    places = {
        key: f"model-{number % shards + 1:05d}-of-{shards:05d}.safetensors"
        for number, key in enumerate(tensors)
    }
    for place in set(places.values()):
        some = {key: weight for key, weight in tensors.items() if places[key] == place}
        save_file(some, folder / place, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), "utf-8")
