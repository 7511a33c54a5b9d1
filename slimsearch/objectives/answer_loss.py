"""Cross-entropy per answer token on the calibration's image-text pairs."""

from slimsearch.contracts import Term
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM


class AnswerLoss(Term):
    needs_pairs = True

    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        return vlm.mean_loss(calibrated.pairs)
