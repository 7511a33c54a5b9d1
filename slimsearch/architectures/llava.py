"""LLaVA 1.5: a CLIP tower, a two-layer projector, any decoder that has a file here."""

from slimsearch.architectures._blocks import USER_ASSISTANT
from slimsearch.contracts import Architecture


class Llava(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
    template = USER_ASSISTANT
    plain = True
