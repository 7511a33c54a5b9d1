"""Idefics3: tiles under names of row and column, then the picture whole."""

from slimsearch.contracts import Architecture


class Idefics3(Architecture):
    stages = None
    projectors = ("connector.modality_projection",)
    tiles = True
