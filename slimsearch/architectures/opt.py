"""OPT: learned positions, biases everywhere, LayerNorm before (or, at 350M, after), no gate."""

from slimsearch.contracts import Architecture


class OPT(Architecture):
    stages = (
        {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj"},
        {"o": "self_attn.out_proj"},
        {"up": "fc1"},
        {"down": "fc2"},
    )
