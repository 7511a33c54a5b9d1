"""SmolVLM: Idefics3 made small."""

from slimsearch.contracts import Architecture


class SmolVLM(Architecture):
    stages = None
    projectors = ("connector.modality_projection",)
    tiles = True
