"""The objective as text becomes terms and weights."""

import pytest

from slimsearch.errors import SettingsError
from slimsearch.searching.objective import weights
from slimsearch.settings import Settings


@pytest.mark.parametrize(
    ("objective", "pairs", "wanted"),
    [
        ("auto", True, {"text_loss": 1, "answer_loss": 10, "weight_norm": 0.25}),
        ("auto", False, {"text_loss": 1, "weight_norm": 0.25}),
        ("paper", True, {"text_loss": 1, "weight_norm": 0.25}),
        ("mixed", False, {"text_loss": 1, "answer_loss": 10, "weight_norm": 0.25}),
        ("text_loss", True, {"text_loss": 1}),
        ("text_loss + 2*answer_loss", True, {"text_loss": 1, "answer_loss": 2}),
        (" text_loss+0.5 * weight_norm ", True, {"text_loss": 1, "weight_norm": 0.5}),
        ("eta*text_loss", True, {"text_loss": 0.25}),
        ("text_loss + text_loss", True, {"text_loss": 2}),
        ("1e-2*text_loss", True, {"text_loss": 0.01}),
    ],
)
def test_objectives_are_read(objective, pairs, wanted):
    assert weights(Settings(objective=objective, eta=0.25), pairs) == wanted


@pytest.mark.parametrize(
    ("objective", "eta", "wanted"),
    [("paper", -1.0, 0.5), ("paper", 0.0, 0.0), ("mixed", -1.0, None), ("mixed", 0.0, None),
     ("text_loss + eta*weight_norm", -1.0, 0.5), ("text_loss + weight_norm", -1.0, 1.0)],
)  # fmt: skip
def test_the_norm_term_is_there_where_it_is_asked_for(objective, eta, wanted):
    found = weights(Settings(objective=objective, eta=eta), pairs=True)
    assert found.get("weight_norm") == wanted


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("", "cannot be read"),
        ("text_loss +", "cannot be read"),
        ("text_loss - answer_loss", "cannot be read"),
        ("two*text_loss", "cannot be read"),
        ("1.2.3*text_loss", "cannot be read"),
        ("text_loss*2", "cannot be read"),
        ("text_los", "Did you mean 'text_loss'"),
        ("papr", "Did you mean 'paper'"),
        ("2*paper", "unknown term 'paper'"),
    ],
)
def test_what_is_no_objective_is_refused(objective, words):
    with pytest.raises(SettingsError, match="objective") as caught:
        weights(Settings(objective=objective), True)
    assert words in str(caught.value)
