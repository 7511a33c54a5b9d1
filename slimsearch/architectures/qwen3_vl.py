"""Qwen3-VL: what earlier layers of the tower saw is added to the first blocks (DeepStack)."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Qwen3VL(Architecture):
    stages = GATED
    projectors = ("visual.merger", "visual.deepstack_merger_list")
    marks = {"mm_token_type_ids": "pictures"}
