"""ViP-LLaVA: LLaVA whose projector reads several layers of the tower at once."""

from slimsearch.architectures._blocks import USER_ASSISTANT
from slimsearch.contracts import Architecture


class VipLlava(Architecture):
    stages = None
    projectors = ("multi_modal_projector",)
    template = USER_ASSISTANT
    plain = True
