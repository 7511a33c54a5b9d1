"""Ministral 3: Mistral whose queries are scaled by position, also inside Mistral 3."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Ministral3(Architecture):
    stages = GATED
