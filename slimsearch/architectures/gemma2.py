"""Gemma 2: norms before and after attention and MLP, windows in every other block."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Gemma2(Architecture):
    stages = GATED
