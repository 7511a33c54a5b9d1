"""Qwen2-VL: pictures of any size; positions run along time, height and width."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Qwen2VL(Architecture):
    stages = GATED
    projectors = ("visual.merger",)
    marks = {"mm_token_type_ids": "pictures"}
