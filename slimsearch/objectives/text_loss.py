"""Cross-entropy per token on the calibration's text segments."""

from slimsearch.batch import Calibrated
from slimsearch.contracts import Term
from slimsearch.vlm import VLM


class TextLoss(Term):
    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        return vlm.mean_loss(calibrated.texts)
