"""A tiny random model of every family, as save_pretrained leaves it, with its real processor.

`make(family, folder)` writes one. Shapes may be odd: three heads, one head of keys, heads that make
less than the width; tied or untied; in shards; in any dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from slimsearch.model.senses import pixtral, without_videos

VOCABULARY = 360
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
BEGIN, END, PADDING = 1, 2, 3
SQUARE = {"height": 16, "width": 16}


def make(
    family: str,
    folder: Path,
    *,
    blocks: int = 2,
    heads: int = 3,
    kv_heads: int = 1,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: bool = False,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Writes a model of a family into a new folder; `config` are further choices of its decoder."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "head_dim": 10,
        "num_hidden_layers": blocks, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": 512, "tie_word_embeddings": tied, "initializer_range": 0.2,
        "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PADDING,
    } | config  # fmt: skip
    if family in TEXT:
        model, beside = TEXT[family](text), tokenizer()
    else:
        model, beside = VISION[family](text)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and not any(part in name for part in ("layers.", "embed_tokens")):
                weight.mul_(4)  # so that pictures differ
            if "mm_input_projection" in name:
                weight.normal_(0, 0.3)  # Gemma 3's begins at nothing
            if weight.ndim == 1 and "norm" not in name:
                weight.normal_(0, 0.1)  # biases, which begin at nothing
    model.to(dtype)
    model.save_pretrained(folder, max_shard_size="20KB" if shards else "1GB")
    beside.save_pretrained(folder)
    return folder


@cache
def tokenizer(*special: str, end: str = "</s>", **named: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE; `end` ends an answer, `named` are special tokens under the names that a
    processor asks for."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    some = [*SPECIAL, *dict.fromkeys((*special, *named.values()))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 10, special_tokens=some, show_progress=False,
        initial_alphabet=alphabet,
    )  # fmt: skip
    inner.train_from_iterator([tiny.prose(500)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token=end,
        pad_token="<pad>", extra_special_tokens=named or list(special),
    )  # fmt: skip


def _plain(name: str, **more: Any) -> Callable[[dict], Any]:
    """A text-only family whose configuration has the usual names."""

    def made(text: dict) -> Any:
        config = getattr(transformers, f"{name}Config")(**{**more, **text})
        return transformers.AutoModelForCausalLM.from_config(config)

    return made


def _opt(text: dict, **more: Any) -> Any:
    width = 8 * text["num_attention_heads"]
    known = {k: v for k, v in text.items() if k.endswith("_id") or k in (
        "vocab_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
        "tie_word_embeddings")}  # fmt: skip
    config = transformers.OPTConfig(
        **known, hidden_size=width, ffn_dim=text["intermediate_size"],
        word_embed_proj_dim=more.pop("narrow", width), init_std=0.2, **more,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config)


def _phi3(text: dict) -> Any:
    text = text | {"hidden_size": 8 * text["num_attention_heads"]}
    return _plain("Phi3")(text)


TEXT: dict[str, Callable[[dict], Any]] = {
    "llama": _plain("Llama", attention_bias=True),
    "mistral": _plain("Mistral", sliding_window=9),
    "qwen2": _plain("Qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3": _plain("Qwen3"),
    "gemma": _plain("Gemma"),
    "gemma2": _plain("Gemma2", sliding_window=9, query_pre_attn_scalar=8),
    "gemma3_text": _plain(
        "Gemma3Text", sliding_window=9, query_pre_attn_scalar=8, final_logit_softcapping=20.0
    ),
    "ministral3": _plain("Ministral3"),
    "opt": _opt,
    "phi3": _phi3,
}


def _template(image: str, user: str, ask: str, answer: str, end: str, begin: str = "") -> str:
    """`begin`, then each question between `user` and `ask`, each answer between `answer` and
    `end`; the picture where the question has it."""
    part = "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}"
    part += "{{ part['text'] }}{% endif %}{% endfor %}"
    asked = f"{user}{part.replace('IMAGE', image)}{ask}"
    return (
        f"{begin}{{% for message in messages %}}{{% if message['role'] == 'user' %}}{asked}"
        f"{{% else %}}{answer}{part}{end}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


def _chatml(image: str) -> str:
    user, answer, end = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"
    return _template(image, user, end, answer, end)


USER = _template("<image>\n", "USER: ", "", " ASSISTANT: ", "</s>", "<s>")
CLIP = {
    "model_type": "clip_vision_model", "image_size": 16, "patch_size": 8, "hidden_size": 16,
    "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "projection_dim": 16, "initializer_range": 0.2,
}  # fmt: skip
SIGLIP = {
    "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 8, "hidden_size": 16,
    "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vision_use_head": False,
}  # fmt: skip
GRIDS = [[16, 32], [32, 16], [32, 32], [16, 48]]


def _ids(speech: Any, **named: str) -> dict[str, int]:
    return {name: speech.convert_tokens_to_ids(token) for name, token in named.items()}


def _seeing(name: str, text: dict, speech: Any, **config: Any) -> Any:
    made = getattr(transformers, f"{name}Config")(
        text_config=text, tie_word_embeddings=text["tie_word_embeddings"], **config
    )
    return getattr(transformers, f"{name}ForConditionalGeneration")(made)


def _llava(text: dict) -> tuple[Any, Any]:
    speech = tokenizer("<image>")
    model = _seeing(
        "Llava", {"model_type": "qwen2", **text}, speech, vision_config=CLIP,
        vision_feature_layer=-2, image_seq_length=4, **_ids(speech, image_token_index="<image>"),
    )  # fmt: skip
    pictures = transformers.CLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE)
    return model, transformers.LlavaProcessor(
        pictures, speech, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=USER,
    )  # fmt: skip


def _vipllava(text: dict) -> tuple[Any, Any]:
    speech = tokenizer("<image>")
    model = _seeing(
        "VipLlava", {"model_type": "llama", **text}, speech, vision_config=CLIP,
        vision_feature_layers=[-1, -2, 1], image_seq_length=4,
        **_ids(speech, image_token_index="<image>"),
    )  # fmt: skip
    return model, _llava(text)[1]


def _llava_next(text: dict) -> tuple[Any, Any]:
    speech = tokenizer("<image>")
    model = _seeing(
        "LlavaNext", {"model_type": "mistral", **text}, speech, vision_config=CLIP,
        image_grid_pinpoints=GRIDS, **_ids(speech, image_token_index="<image>"),
    )  # fmt: skip
    pictures = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size=SQUARE, image_grid_pinpoints=GRIDS
    )
    return model, transformers.LlavaNextProcessor(
        pictures, speech, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=USER,
    )  # fmt: skip


def _llava_onevision(text: dict) -> tuple[Any, Any]:
    speech = tokenizer("<image>", "<video>", "<|im_start|>", "<|im_end|>", end="<|im_end|>")
    model = _seeing(
        "LlavaOnevision", {"model_type": "qwen2", **text}, speech, vision_config=SIGLIP,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
        image_grid_pinpoints=GRIDS, vision_aspect_ratio="anyres_max_9",
        **_ids(speech, image_token_index="<image>", video_token_index="<video>"),
    )  # fmt: skip
    pictures = transformers.LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=GRIDS)
    return model, without_videos(transformers.LlavaOnevisionProcessor)(
        pictures, speech, num_image_tokens=4, vision_feature_select_strategy="full",
        chat_template=_chatml("<image>\n"),
    )  # fmt: skip


def _internvl(text: dict) -> tuple[Any, Any]:
    speech = tokenizer(
        "<|im_start|>", "<|im_end|>", end="<|im_end|>", start_image_token="<img>",
        end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    vision = {
        "model_type": "internvl_vision", "image_size": [16, 16], "patch_size": [4, 4],
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "initializer_range": 0.2,
    }  # fmt: skip
    model = _seeing(
        "InternVL", {"model_type": "qwen2", **text}, speech, vision_config=vision,
        image_seq_length=4, **_ids(speech, image_token_id="<IMG_CONTEXT>"),
    )  # fmt: skip
    pictures = transformers.GotOcr2ImageProcessorPil(
        size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4
    )
    return model, without_videos(transformers.InternVLProcessor)(
        pictures, speech, image_seq_length=4, chat_template=_chatml("<IMG_CONTEXT>\n")
    )


def _paligemma(text: dict) -> tuple[Any, Any]:
    speech = tokenizer("<image>")
    model = _seeing(
        "PaliGemma", {"model_type": "gemma", **text}, speech, vision_config=SIGLIP | {
            "projection_dim": 24}, projection_dim=24, **_ids(speech, image_token_index="<image>"),
    )  # fmt: skip
    pictures = transformers.SiglipImageProcessorPil(size=SQUARE)
    pictures.image_seq_length = 4
    return model, transformers.PaliGemmaProcessor(pictures, speech)


def _gemma3(text: dict) -> tuple[Any, Any]:
    speech = tokenizer(
        "<start_of_turn>", "<end_of_turn>", boi_token="<start_of_image>",
        eoi_token="<end_of_image>", image_token="<image_soft_token>",
    )  # fmt: skip
    inside = {
        "model_type": "gemma3_text", "sliding_window": 9, "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"] * (text["num_hidden_layers"] // 2)
        + ["sliding_attention"] * (text["num_hidden_layers"] % 2),
    } | text  # fmt: skip
    model = _seeing(
        "Gemma3", inside, speech, vision_config=SIGLIP | {"image_size": 32}, mm_tokens_per_image=4,
        **_ids(speech, boi_token_index="<start_of_image>", eoi_token_index="<end_of_image>",
               image_token_index="<image_soft_token>"),
    )  # fmt: skip
    pictures = transformers.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    template = _template(
        "<start_of_image>", "<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>model\n",
        "<end_of_turn>\n", "<s>",
    )  # fmt: skip
    return model, transformers.Gemma3Processor(
        pictures, speech, image_seq_length=4, chat_template=template
    )


def _mistral3(text: dict) -> tuple[Any, Any]:
    speech = tokenizer("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    vision = {
        "model_type": "pixtral", "image_size": 64, "patch_size": 4, "hidden_size": 16,
        "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
        "initializer_range": 0.2,
    }  # fmt: skip
    model = _seeing(
        "Mistral3", {"model_type": "mistral", **text}, speech, vision_config=vision,
        spatial_merge_size=2, vision_feature_layer=-1, **_ids(speech, image_token_index="[IMG]"),
    )  # fmt: skip
    pictures = transformers.PixtralImageProcessorPil(
        size={"longest_edge": 32}, patch_size={"height": 4, "width": 4}
    )
    return model, pixtral()(
        pictures, speech, patch_size=4, spatial_merge_size=2,
        chat_template=_template("[IMG]", "[INST]", "[/INST]", "", "</s>", "<s>"),
    )  # fmt: skip


def _qwen(name: str, vision: dict) -> Callable[[dict], tuple[Any, Any]]:
    """Qwen's, whose towers differ."""

    def made(text: dict) -> tuple[Any, Any]:
        speech = tokenizer(
            "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
            "<|video_pad|>", end="<|im_end|>",
        )  # fmt: skip
        wide = text["head_dim"] if name == "Qwen3VL" else 8  # the older have no such choice
        rope = {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, wide // 2 - 2]
        }  # fmt: skip
        text = text | {"rope_parameters": rope, "head_dim": wide}
        patch = {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
        model = _seeing(
            name, text, speech, vision_config=vision | patch,
            **_ids(speech, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>",
                   vision_start_token_id="<|vision_start|>", vision_end_token_id="<|vision_end|>"),
        )  # fmt: skip
        pictures = transformers.Qwen2VLImageProcessorPil(
            min_pixels=8 * 8, max_pixels=32 * 32, patch_size=4, temporal_patch_size=2, merge_size=2
        )
        kind = {"Qwen2VL": "Qwen2VL", "Qwen2_5_VL": "Qwen2_5_VL", "Qwen3VL": "Qwen3VL"}[name]
        return model, without_videos(getattr(transformers, f"{kind}Processor"))(
            pictures, speech, chat_template=_chatml("<|vision_start|><|image_pad|><|vision_end|>")
        )

    return made


def _idefics(name: str) -> Callable[[dict], tuple[Any, Any]]:
    """Idefics3 and SmolVLM."""

    def made(text: dict) -> tuple[Any, Any]:
        places = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
        speech = tokenizer(
            "<end_of_utterance>", *places, fake_image_token="<fake_token_around_image>",
            image_token="<image>", global_image_token="<global-img>",
        )  # fmt: skip
        vision = {
            "image_size": 16, "patch_size": 4, "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 2,
        }  # fmt: skip
        model = _seeing(
            name, {"model_type": "llama", **text}, speech, vision_config=vision, scale_factor=2,
            **_ids(speech, image_token_id="<image>"),
        )  # fmt: skip
        pictures = getattr(transformers, f"{name}ImageProcessorPil")(
            size={"longest_edge": 48}, max_image_size={"longest_edge": 16}
        )
        kind = getattr(transformers, f"{name}Processor")
        more = {}
        if name == "SmolVLM":
            kind, more = without_videos(kind), {"video_processor": None}
        return model, kind(
            pictures, speech, image_seq_len=4, **more,
            chat_template=_template("<image>", "User:", "<end_of_utterance>\n", "Assistant: ",
                                    "<end_of_utterance>\n", "<s>"),
        )  # fmt: skip

    return made


VISION = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "vipllava": _vipllava,
    "internvl": _internvl,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "mistral3": _mistral3,
    "qwen2_vl": _qwen("Qwen2VL", {
        "embed_dim": 16, "hidden_size": 24, "depth": 2, "num_heads": 2, "mlp_ratio": 2}),
    "qwen2_5_vl": _qwen("Qwen2_5_VL", {
        "hidden_size": 16, "out_hidden_size": 24, "intermediate_size": 32, "depth": 2,
        "num_heads": 2, "window_size": 16, "fullatt_block_indexes": [1]}),
    "qwen3_vl": _qwen("Qwen3VL", {
        "hidden_size": 16, "out_hidden_size": 24, "intermediate_size": 32, "depth": 3,
        "num_heads": 2, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}),
    "idefics3": _idefics("Idefics3"),
    "smolvlm": _idefics("SmolVLM"),
}  # fmt: skip
