"""Cross-entropy per token on the calibration's text segments."""

from slimsearch.contracts import Term
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM


class TextLoss(Term):
    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        return vlm.mean_loss(calibrated.texts)
