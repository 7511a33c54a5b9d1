"""InternVL: tiles of one size, four patches merged into one before the projector."""

from slimsearch.contracts import Architecture


class InternVL(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
    plain = True
