"""LLaVA 1.5: a CLIP tower, a two-layer projector, a LLaMA-shaped decoder."""

from slimsearch.architectures.llama import Llama
from slimsearch.contracts import Architecture


class Llava(Architecture):
    decoder = "model.language_model"
    vision = "model.vision_tower"
    projector = "model.multi_modal_projector"
    stages = Llama.stages
    renamed = {
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
        "multi_modal_projector.": "model.multi_modal_projector.",
        "vision_tower.": "model.vision_tower.",
    }
