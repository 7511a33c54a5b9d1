"""Qwen2.5-VL: Qwen2-VL whose tower looks through windows."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Qwen25VL(Architecture):
    stages = GATED
    projectors = ("visual.merger",)
    marks = {"mm_token_type_ids": "pictures"}
