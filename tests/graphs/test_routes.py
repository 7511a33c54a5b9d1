"""Blocks that run otherwise, as graphs and in our own engine, against the model in torch."""

import numpy as np
import pytest
import tiny
from safetensors import safe_open

from slimsearch import artefact, checkpoint, loading, plugins
from slimsearch.errors import ModelError
from slimsearch.resident import Resident
from slimsearch.route import EVERY, PICTURES, TOKENS, Merge, Route, Step, plain

BLOCKS = 4
ONE = Step()
SAID = {
    "ffn": (Step(skip_ffn=EVERY), ONE, ONE, ONE),
    "attention": (Step(skip_attention=EVERY), ONE, Step(skip_attention=EVERY), ONE),
    "all attention": (Step(skip_attention=EVERY),) * BLOCKS,
    "beside": (ONE, Step(parallel_ffn=True), ONE, Step(parallel_ffn=True)),
    "mean": (Step(parallel_next="mean"), ONE, Step(parallel_next="mean"), ONE),
    "sum": (ONE, Step(parallel_next="sum"), Step(parallel_ffn=True), Step(skip_ffn=EVERY)),
    "block": (Step(skip_block=EVERY), ONE, Step(skip_block=EVERY, parallel_next="sum"), ONE),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tiny.llava(tmp_path_factory.mktemp("graphs") / "llava", blocks=BLOCKS, kv_heads=2)
    return loading.load(checkpoint.find(str(folder)), "cpu", "float32")


def written(model, steps, folder, *forms):
    """Those forms of a model on a route; what it says itself."""
    model.reroute("test", Route(steps))
    try:
        exporters = {form: plugins.find("exporters", form)() for form in forms}
        artefact.write(model, folder, artefact.facts_of(model), exporters)
        return list(said(Resident(model)))
    finally:
        model.reroute("test", plain(BLOCKS))


def said(session):
    """Logits of a prompt of two rows, one padded, and of three tokens after it."""
    ids = np.array([[1, 20, 21, 22, 23, 24, 25], [0, 0, 1, 30, 31, 32, 33]])
    mask = np.array([[1] * 7, [0, 0, *[1] * 5]])
    for token in (40, 41, 42, 0):
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        yield session.step(np.array(session.embed(ids)), mask, positions)
        ids = np.array([[token], [token + 5]])
        mask = np.concatenate([mask, np.ones((2, 1), np.int64)], 1)


@pytest.mark.parametrize("name", SAID)
def test_onnx_draws_the_blocks_as_they_run(model, name, tmp_path):
    wanted = written(model, SAID[name], tmp_path / "out", "onnx")
    session = plugins.find("runtimes", "onnxruntime")().open(tmp_path / "out")
    for found, logits in zip(said(session), wanted, strict=True):
        np.testing.assert_allclose(found, logits, atol=2e-4)


def test_what_is_skipped_is_not_in_the_graph(model, tmp_path):
    import onnx

    written(model, SAID["attention"], tmp_path / "out", "onnx")
    graph = onnx.load(tmp_path / "out/onnx/decoder_model_merged.onnx", load_external_data=False)
    held = {one.name for one in graph.graph.initializer}
    assert not any("blocks.0.q" in name or "blocks.2.o" in name for name in held)
    assert any("blocks.1.q" in name for name in held)
    assert {one.name for one in graph.graph.input if one.name.endswith(".key")} == {
        "past_key_values.1.key", "past_key_values.3.key"
    }  # fmt: skip


@pytest.mark.parametrize("form", ["onnx", "native", "deepsparse"])
@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Step(skip_block=TOKENS["T"]), "some tokens skip parts of block 0"),
        (Step(skip_ffn=PICTURES), "some tokens skip parts of block 0"),
        (Step(window=0), "cuts attention among pictures' tokens in block 0"),
    ],
)
def test_what_no_graph_says_is_refused(model, form, step, why, tmp_path):
    with pytest.raises(ModelError, match=f"{why}.*--runtime torch follows it"):
        written(model, (step, ONE, ONE, ONE), tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_merged_tokens_are_refused(model, tmp_path):
    model.reroute("test", Route(plain(BLOCKS).steps, Merge()))
    try:
        with pytest.raises(ModelError, match="merges pictures' tokens"):
            artefact.write(
                model, tmp_path / "out", artefact.facts_of(model),
                {"onnx": plugins.find("exporters", "onnx")()},
            )  # fmt: skip
    finally:
        model.reroute("test", plain(BLOCKS))


def test_the_native_engine_skips_by_zeros_and_refuses_the_rest(model, tmp_path):
    steps = (Step(skip_ffn=EVERY), Step(skip_attention=EVERY), ONE, Step(skip_block=EVERY))
    wanted = written(model, steps, tmp_path / "hf", "hf")
    thin = loading.load(checkpoint.find(str(tmp_path / "hf")), "cpu", "float32")
    native = {"native": plugins.find("exporters", "native")()}
    artefact.write(thin, tmp_path / "out", artefact.facts_of(thin), native)
    session = plugins.find("runtimes", "native")().open(tmp_path / "out")
    for found, logits in zip(said(session), wanted, strict=True):
        np.testing.assert_allclose(found, logits, atol=2e-3)
    with safe_open(next((tmp_path / "out/native").glob("decoder*")), "np") as held:
        names = list(held.keys())
        assert "blocks.0.down.mask" in names
        assert not held.get_tensor("blocks.0.down.mask").any()
        assert not any(name.startswith("blocks.3.") for name in names)
    for steps in (SAID["beside"], SAID["mean"]):
        with pytest.raises(ModelError, match="does not run as the native engine"):
            written(model, steps, tmp_path / "no", "native")
