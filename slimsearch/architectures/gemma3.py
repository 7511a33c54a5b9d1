"""Gemma 3: a picture is pooled to a fixed number of tokens, and these attend to each other."""

from slimsearch.contracts import Architecture


class Gemma3(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
    tiles = True
    marks = {"token_type_ids": "pictures"}
