"""Qwen3: LLaMA with a norm on the queries and on the keys of each head."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Qwen3(Architecture):
    stages = GATED
