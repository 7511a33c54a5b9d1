"""What a candidate is scored by: terms of objectives/ and their weights, from one setting.

`paper` is SlimLLaVA's equation 4, text only. `mixed`, ours, has the answers to questions about
pictures: text alone gives the projector no gradient at all. They weigh ten times what text does:
answers are short and their loss is small, and seeing is the first thing that pruning costs. It has
equation 4's norm term where eta is given: at a fixed ratio that was measured to be worth nothing.
"""

import re

from slimsearch import plugins
from slimsearch.errors import SettingsError, did_you_mean
from slimsearch.settings import Settings

NORM = "eta*weight_norm"
PRESETS = {"paper": f"text_loss + {NORM}", "mixed": "text_loss + 10*answer_loss"}
ETA = 0.5  # where the norm term is asked for and eta is not


def weights(settings: Settings, pairs: bool) -> dict[str, float]:
    """Term -> weight, of the preset or of an expression such as 'text_loss + 2*answer_loss'."""
    chosen = settings.objective
    if chosen == "auto":
        chosen = "mixed" if pairs else "paper"
    expression = PRESETS.get(chosen, chosen)
    if chosen == "mixed" and settings.eta > 0:
        expression += f" + {NORM}"
    return _parse(expression, ETA if settings.eta < 0 else settings.eta)


def _parse(expression: str, eta: float) -> dict[str, float]:
    found: dict[str, float] = {}
    known = plugins.names("objectives")
    for part in expression.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.eE-]+|eta)\s*\*\s*)?([A-Za-z_]+)\s*", part)
        try:
            number = match[1] if match else ""
            weight = eta if match and number == "eta" else float(number or 1)
        except ValueError:
            match, weight = None, 0.0
        if match is None:
            raise SettingsError(
                f"objective = '{expression}' cannot be read at '{part.strip()}'. Give "
                f"{', '.join(PRESETS)}, auto, or terms like 'text_loss + 2*answer_loss'."
            )
        if match[2] not in known:
            raise SettingsError(
                f"objective has an unknown term '{match[2]}'."
                f"{did_you_mean(match[2], [*known, *PRESETS])}"
            )
        found[match[2]] = found.get(match[2], 0.0) + weight
    return found
