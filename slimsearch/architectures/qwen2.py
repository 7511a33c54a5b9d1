"""Qwen2 and Qwen2.5: LLaMA with biases at q, k and v, and windows in some blocks."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Qwen2(Architecture):
    stages = GATED
