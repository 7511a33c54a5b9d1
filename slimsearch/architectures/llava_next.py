"""LLaVA-NeXT (1.6): the picture whole and in tiles that fit its shape, each row ended by a mark."""

from slimsearch.architectures._blocks import USER_ASSISTANT
from slimsearch.contracts import Architecture


class LlavaNext(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
    tiles = True
    template = USER_ASSISTANT
