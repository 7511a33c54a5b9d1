"""LLaVA-OneVision: up to nine tiles, shrunk to a fixed number of tokens where there are more."""

from slimsearch.architectures._blocks import USER_ASSISTANT
from slimsearch.contracts import Architecture


class LlavaOnevision(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
    tiles = True
    template = USER_ASSISTANT
