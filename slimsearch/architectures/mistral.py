"""Mistral: LLaMA with a sliding window in its first release."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Mistral(Architecture):
    stages = GATED
