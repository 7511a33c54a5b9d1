"""Perplexity of held-out text, segment by segment."""

from math import exp

from slimsearch.contracts import Task
from slimsearch.vlm import VLM, Calibrated


class Perplexity(Task):
    def measure(self, vlm: VLM, held_out: Calibrated) -> dict[str, float]:
        if not held_out.texts:
            return {}
        return {"perplexity": exp(min(vlm.mean_loss(held_out.texts), 80.0))}
