"""LLaMA: a text-only decoder, and the decoder inside LLaVA."""

from slimsearch.contracts import Architecture


class Llama(Architecture):
    decoder = "model"
    vision = None
    projector = None
    stages = (
        {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj"},
        {"o": "self_attn.o_proj"},
        {"gate": "mlp.gate_proj", "up": "mlp.up_proj"},
        {"down": "mlp.down_proj"},
    )
    renamed = {}
