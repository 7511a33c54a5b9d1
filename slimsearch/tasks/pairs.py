"""Held-out questions about pictures: share answered exactly by greedy decoding, and answer loss."""

from slimsearch.contracts import Task
from slimsearch.vlm import VLM, Calibrated


class Pairs(Task):
    def measure(self, vlm: VLM, held_out: Calibrated) -> dict[str, float]:
        if not held_out.pairs:
            return {}
        right = [
            answer for batch in held_out.pairs for row in vlm.answers_right(batch) for answer in row
        ]
        return {
            "accuracy": sum(right) / len(right),
            "answer_loss": vlm.mean_loss(held_out.pairs),
        }
