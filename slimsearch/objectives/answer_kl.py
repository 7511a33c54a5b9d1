"""KL to what the dense model expects next, per answer token of the calibration's pairs."""

from slimsearch.contracts import Term
from slimsearch.model.batch import Calibrated
from slimsearch.model.vlm import VLM
from slimsearch.objectives._kl import Divergence


class AnswerKL(Term):
    needs_pairs = True

    def __init__(self) -> None:
        self._divergence = Divergence()

    def prepare(self, vlm: VLM, calibrated: Calibrated) -> None:
        self._divergence.prepare(vlm, calibrated.pairs, calibrated.share)

    def measure(self, vlm: VLM, calibrated: Calibrated) -> float:
        return self._divergence.mean(vlm, calibrated.pairs, calibrated.share)
