"""Gemma 3 without its eyes: windows in most blocks, a rotation of their own there."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Gemma3Text(Architecture):
    stages = GATED
