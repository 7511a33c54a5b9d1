"""Mistral 3: pictures of any size; rows of patches end in tokens of their own."""

from slimsearch.contracts import Architecture


class Mistral3(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
