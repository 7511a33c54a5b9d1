"""What transformers raises on a broken folder becomes a refusal; what stops a run does not."""

import shutil

import pytest
import torch

from slimsearch.errors import ModelError, Stopped
from slimsearch.model import checkpoint, loading


def test_the_device_and_dtype_that_were_asked_for(llava_16):
    found = checkpoint.find(str(llava_16))
    for name in ("float32", "bfloat16", "float16"):
        assert loading.load(found, "cpu", name).dtype == getattr(torch, name)


@pytest.mark.parametrize(
    ("flags", "dtype"), [({"avx2"}, torch.float32), ({"avx512_bf16"}, torch.bfloat16)]
)
def test_auto_is_the_models_own_where_the_processor_multiplies_it(
    llava, llava_16, monkeypatch, flags, dtype
):
    monkeypatch.setattr(loading, "processor_flags", lambda: flags)
    assert loading.load(checkpoint.find(str(llava_16)), "cpu", "auto").dtype == dtype
    assert loading.load(checkpoint.find(str(llava)), "cpu", "auto").dtype == torch.float32


def test_a_config_that_fits_no_weights_is_refused(llava, tmp_path):
    folder = shutil.copytree(llava, tmp_path / "m")
    text = (folder / "config.json").read_text()
    assert '"intermediate_size": 48' in text
    (folder / "config.json").write_text(
        text.replace('"intermediate_size": 48', '"intermediate_size": 64')
    )
    with pytest.raises(ModelError, match=str(folder)):
        loading.load(checkpoint.find(str(folder)), "cpu", "auto")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.0])
@pytest.mark.parametrize("place", [0, 9, -1])
def test_weights_are_looked_at_piece_by_piece(llava, monkeypatch, value, place):
    """An embedding may be nearly all of a model, and is not to stand in memory twice."""
    looked, isfinite = [], torch.isfinite

    def noting(some):
        looked.append(some.numel())
        return isfinite(some)

    monkeypatch.setattr(loading, "PIECE", 10)
    monkeypatch.setattr(torch, "isfinite", noting)
    weight = torch.ones(7, 13)
    weight.view(-1)[place] = value
    if value == 1:
        loading.check_finite(checkpoint.find(str(llava)), [("w", weight)])
        assert sum(looked) == weight.numel()
    else:
        with pytest.raises(ModelError, match="NaN or infinity, in w"):
            loading.check_finite(checkpoint.find(str(llava)), [("w", weight)])
    assert max(looked) <= 10


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError(""), KeyError("x"), OSError()])
def test_any_error_of_transformers_is_a_model_error(llava, error):
    found = checkpoint.find(str(llava))

    def fail() -> None:
        with loading.refused(found):
            raise error

    with pytest.raises(ModelError, match=str(llava)):
        fail()


@pytest.mark.parametrize("error", [Stopped("stopped.", 130), MemoryError(), KeyboardInterrupt()])
def test_what_stops_a_run_passes_through(llava, error):
    """Ctrl-C while a model is read is no fault of the model's."""
    found = checkpoint.find(str(llava))

    def stop() -> None:
        with loading.refused(found):
            raise error

    with pytest.raises(type(error)):
        stop()


def test_transformers_is_quiet_within_and_as_before_after():
    from transformers.utils import logging

    before = logging.get_verbosity()
    with loading.quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR
    assert logging.get_verbosity() == before
