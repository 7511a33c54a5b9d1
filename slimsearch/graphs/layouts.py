"""Where each kind of decoder keeps its parts, and what it does with them, by `model_type`."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Layout:
    """Names of norms inside a block ('' for one that is not there), and of keys of the config."""

    before_attention: str = "input_layernorm"
    after_attention: str = ""
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str = ""
    q_norm: str = ""
    k_norm: str = ""
    last: str = "norm"
    around_one: bool = False  # a norm's scale is 1 + what is stored
    activation: str = "hidden_act"
    gated: bool = True
    rotates: bool = True  # else positions are embeddings
    by_kind: bool = False  # `layer_types` says which blocks have windows; else all of them do
    scale: str = ""  # scores are divided by its root; by the root of a head's width where ''
    score_cap: str = ""


HEADS = Layout(q_norm="self_attn.q_norm", k_norm="self_attn.k_norm", by_kind=True)
SANDWICH = Layout(
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
    around_one=True,
    activation="hidden_activation",
    by_kind=True,
    scale="query_pre_attn_scalar",
)
KNOWN = {
    "llama": Layout(),
    "mistral": Layout(),
    "ministral3": Layout(),
    "phi3": Layout(),
    "qwen2": Layout(by_kind=True),
    "qwen3": HEADS,
    "gemma": Layout(around_one=True),
    "gemma2": replace(SANDWICH, score_cap="attn_logit_softcapping"),
    "gemma3_text": replace(SANDWICH, q_norm=HEADS.q_norm, k_norm=HEADS.k_norm),
    "opt": Layout(
        before_attention="self_attn_layer_norm",
        before_mlp="final_layer_norm",
        last="final_layer_norm",
        activation="activation_function",
        gated=False,
        rotates=False,
    ),
}
