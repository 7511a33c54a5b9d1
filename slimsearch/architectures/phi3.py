"""Phi-3 and Phi-4: q, k and v are one matrix, and so are gate and up."""

from slimsearch.contracts import Architecture


class Phi3(Architecture):
    stages = (
        {"qkv": "self_attn.qkv_proj"},
        {"o": "self_attn.o_proj"},
        {"gate_up": "mlp.gate_up_proj"},
        {"down": "mlp.down_proj"},
    )
