"""Blocks that run otherwise, as graphs and in our own engine, against the model in torch."""

import numpy as np
import pytest
import tiny
from safetensors import safe_open

from slimsearch import artefact, plugins
from slimsearch.contracts import Session
from slimsearch.errors import ModelError
from slimsearch.model import checkpoint, loading
from slimsearch.model.resident import Resident
from slimsearch.native import library
from slimsearch.routes.kinds import PICTURE, PROMPT, TEXT
from slimsearch.routes.route import EVERY, PICTURES, TOKENS, Merge, Route, Step, plain

BLOCKS = 4
P, V = PROMPT, PICTURE
needs_engine = pytest.mark.skipif(library.load() is None, reason="no C compiler here")
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


def written(model, steps, folder, *forms, dtype=""):
    """Those forms of a model on a route; what it says itself."""
    model.reroute("test", Route(steps))
    try:
        exporters = {form: plugins.make("exporters", form, {"dtype": dtype}) for form in forms}
        artefact.write(model, folder, artefact.facts_of(model), exporters)
        return list(said(Resident(model)))
    finally:
        model.reroute("test", plain(BLOCKS))


def said(session):
    """Logits of a prompt of two rows with pictures, one padded, and of three tokens after it."""
    ids = np.array([[1, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29], [0, 0, 1, *range(30, 38)]])
    mask = np.array([[1] * 11, [0, 0, *[1] * 9]])
    kinds = np.array([[P, P, V, V, V, P, P, P, P, P, P], [0, 0, P, P, P, V, V, V, P, P, P]])
    for token in (40, 41, 42, 0):
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        session.tell(kinds.astype(np.uint8))
        yield session.step(np.array(session.embed(ids)), mask, positions)
        ids = np.array([[token], [token + 5]])
        kinds = np.array([[TEXT], [TEXT]])
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


@pytest.mark.parametrize("form", ["onnx", "deepsparse"])
@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Step(skip_block=TOKENS["T"]), "some tokens skip parts of block 0"),
        (Step(skip_ffn=PICTURES), "some tokens skip parts of block 0"),
        (Step(window=0), "cuts attention among pictures' tokens in block 0"),
    ],
)
def test_what_no_graph_says_is_refused(model, form, step, why, tmp_path):
    with pytest.raises(ModelError, match=f"{why}.*--runtime torch and native follow it"):
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


CUT = {
    "said tokens skip a block": (ONE, Step(skip_block=TOKENS["T"]), ONE, ONE),
    "said tokens skip halves": (
        Step(skip_ffn=TOKENS["T"]), Step(skip_attention=TOKENS["T"]), ONE, ONE
    ),
    "layer cut": (ONE, ONE, Step(skip_block=PICTURES), Step(skip_block=PICTURES)),
    "attention cut": (Step(window=0), Step(window=2), ONE, Step(window=0, skip_ffn=PICTURES)),
    "all at once": (
        Step(window=1, parallel_ffn=True), Step(skip_attention=PICTURES, parallel_next="mean"),
        Step(skip_block=TOKENS["T"]), Step(skip_block=PICTURES | TOKENS["T"], parallel_ffn=True),
    ),
}  # fmt: skip


@needs_engine
@pytest.mark.parametrize("name", [*SAID, *CUT])
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_the_native_engine_follows_every_route(model, name, dtype, tmp_path):
    """In int8 within rounding; with pictures amid text, behind padding and in a further turn."""
    steps = (SAID | CUT)[name]
    wanted = written(model, steps, tmp_path / "out", "native", dtype=dtype)
    session = plugins.find("runtimes", "native")().open(tmp_path / "out", 2)
    for found, logits in zip(said(session), wanted, strict=True):
        near = 2e-3 if dtype == "fp32" else 0.1 * np.abs(logits).max()
        np.testing.assert_allclose(found, logits, atol=near)


@needs_engine
def test_the_native_engine_neither_computes_nor_keeps_what_is_skipped(model, tmp_path):
    steps = (
        Step(skip_block=PICTURES), ONE, Step(skip_attention=TOKENS["T"]), Step(skip_block=EVERY)
    )  # fmt: skip
    written(model, steps, tmp_path / "out", "native")
    session = plugins.find("runtimes", "native")().open(tmp_path / "out")
    list(said(session))
    assert session._cache.filled.tolist() == [[11, 9], [14, 12], [11, 9], [0, 0]]


@needs_engine
def test_blocks_left_out_of_a_folder_are_not_in_the_native_one(model, tmp_path):
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
        assert not held.get_tensor("blocks.0.down.mask").any()
        assert not any(name.startswith("blocks.3.") for name in names)


@needs_engine
def test_merged_tokens_do_not_reach_the_native_engine(model, tmp_path):
    """Pictures seen and read as torch does; what was merged away takes no room in the cache."""
    model.reroute("test", Route((Step(window=0), *[ONE] * (BLOCKS - 1)), Merge(keep=0.5)))
    try:
        native = {"native": plugins.find("exporters", "native")()}
        artefact.write(model, tmp_path / "out", artefact.facts_of(model), native)
        session = plugins.find("runtimes", "native")().open(tmp_path / "out")
        size = model.model.config.vision_config.image_size
        pixels = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
        shown = session.see(pixels)[0]
        np.testing.assert_allclose(shown, Resident(model).see(pixels)[0], atol=1e-4)
        stays = int((shown != 0).any(-1).sum())
        assert 0 < stays < len(shown)
        for one, other in zip(looked(session, shown), looked(Resident(model), shown), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)
        assert session._cache.filled.tolist() == [[stays + 5]] * BLOCKS
    finally:
        model.reroute("test", plain(BLOCKS))


@needs_engine
def test_every_token_has_its_logits_in_one_step(model, tmp_path):
    """Those of padding are left out; the cache is the same as after one token at a time."""
    written(model, (ONE,) * BLOCKS, tmp_path / "out", "native", dtype="fp32")
    session = plugins.find("runtimes", "native")().open(tmp_path / "out")
    ids = np.random.default_rng(0).integers(5, 60, (2, 30))
    mask = np.ones_like(ids)
    mask[1, :12] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    embeds = np.array(session.embed(ids))
    together = session.step_all(embeds, mask, positions)
    session.forget()
    alone = Session.step_all(session, embeds, mask, positions)
    np.testing.assert_allclose(together[mask == 1], alone[mask == 1], atol=1e-4)
    assert not together[mask == 0].any()


def looked(session, shown):
    """Logits of a question with a picture in it, and of a token after it."""
    ids = np.array([[1, *[3] * len(shown), 20, 21, 22]])
    kinds = np.where(ids == 3, PICTURE, PROMPT).astype(np.uint8)
    embeds = np.array(session.embed(ids))
    embeds[kinds == PICTURE] = shown
    places = np.arange(ids.shape[1])[None]
    session.tell(kinds)
    yield session.step(embeds, np.ones_like(ids), places)
    session.tell(np.array([[TEXT]], np.uint8))
    mask = np.ones((1, ids.shape[1] + 1), np.int64)
    yield session.step(np.array(session.embed(np.array([[40]]))), mask, places[:, -1:] + 1)
