"""Gemma: scaled and tied embeddings, wide heads, a gated MLP."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Gemma(Architecture):
    stages = GATED
