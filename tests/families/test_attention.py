"""However transformers computes attention, every family says the same."""

import pytest
import tiny
import tiny_families
import torch

from slimsearch.calibration import Pair, Turn
from slimsearch.errors import SettingsError
from slimsearch.model import checkpoint, conversation, loading

FAMILIES = [*tiny_families.VISION, *tiny_families.TEXT]
EAGER = ("gemma2",)  # it caps what torch's attention does not


def losses(folder, attention):
    """Of every token of some text, and of answers about pictures where the model sees."""
    model = loading.load(checkpoint.find(str(folder)), "cpu", "float32", attention)
    assert model.attention == attention or attention == "auto"
    ids = torch.randint(5, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    batches = [*conversation.text_batches(ids, model.device, 40)]
    if model.sees:
        turns = (Turn("What colour is it?", "red"),)
        pairs = [Pair(str(n), tiny.picture(n), turns) for n in range(2)]
        speech = conversation.load(model.checkpoint)
        batches += conversation.pair_batches(model, speech, pairs, 400)
    return [float(model.loss(batch)) for batch in batches]


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in EAGER])
def test_eager_and_sdpa_say_the_same(family, tmp_path):
    folder = tiny_families.make(family, tmp_path / "model", kv_heads=1)
    eager, sdpa = losses(folder, "eager"), losses(folder, "sdpa")
    assert eager == pytest.approx(sdpa, rel=1e-5)


@pytest.mark.parametrize("family", EAGER)
def test_what_transformers_cannot_do_is_refused(family, tmp_path):
    folder = tiny_families.make(family, tmp_path / "model")
    assert losses(folder, "eager") == pytest.approx(losses(folder, "auto"), rel=1e-5)
    with pytest.raises(SettingsError, match="Use --attention eager"):
        losses(folder, "sdpa")


@pytest.mark.parametrize("family", FAMILIES)
def test_text_is_read_from_left_to_right(family, tmp_path):
    """A loss of a text that is read at once would be that of a model that peeps."""
    folder = tiny_families.make(family, tmp_path / "model")
    model = loading.load(checkpoint.find(str(folder)), "cpu", "float32")
    ids = torch.randint(5, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, -1] = 5
    one, two = (
        model.hidden(model.given(conversation.text_batches(some, model.device, 99)[0]))
        for some in (ids, other)
    )
    assert torch.allclose(one[:, :-1], two[:, :-1], atol=1e-5)
    assert not torch.allclose(one[:, -1], two[:, -1], atol=1e-3)
