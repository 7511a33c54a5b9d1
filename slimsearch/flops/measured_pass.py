"""The pass that a budget or a term is about: a prompt with a picture, or a token behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from slimsearch.errors import SettingsError
from slimsearch.flops.shape import Shape
from slimsearch.routes.route import Route
from slimsearch.routes.traffic import Traffic, prompt, token


@dataclass(frozen=True)
class MeasuredPass:
    sizes: Shape
    phase: str  # prefill or decode
    tokens: int  # of the prompt
    visual: int  # of them

    def traffic(self, route: Route) -> list[Traffic]:
        """Through each block of a decoder that runs along a route."""
        read = prompt(route, self.sizes.spans, self.visual, self.tokens - self.visual)
        return read if self.phase == "prefill" else token(route, read)

    def merged(self, share: float) -> MeasuredPass:
        """The same where only a share of the picture's tokens stays."""
        gone = self.visual - max(1, round(self.visual * share)) if self.visual else 0
        return replace(self, tokens=self.tokens - gone, visual=self.visual - gone)

    @property
    def read(self) -> int:
        """How many tokens the decoder reads."""
        return self.tokens if self.phase == "prefill" else 1


def measured_pass(sizes: Shape, phase: str, tokens: int, visual: int) -> MeasuredPass:
    """`visual` = -1 takes one picture's."""
    if visual < 0:
        visual = 0 if sizes.tower is None else sizes.tower.visual
    if visual >= tokens:
        raise SettingsError(
            f"A prompt of {tokens} tokens has no room for {visual} of a picture's and a question. "
            f"Give --latency-tokens {visual + 64}, or fewer --visual-tokens."
        )
    return MeasuredPass(sizes, phase, tokens, visual)
