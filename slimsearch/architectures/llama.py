"""LLaMA: RMSNorm, rotary attention with grouped keys, a gated MLP."""

from slimsearch.architectures._blocks import GATED
from slimsearch.contracts import Architecture


class Llama(Architecture):
    stages = GATED
