"""A graph that would read outside its folder, or is not whole, is refused before it is opened."""

import onnx
import pytest

from slimsearch.errors import ModelError
from slimsearch.graphs import anatomy, decoder, outside, sheet


@pytest.fixture
def graph(load, llama, tmp_path, monkeypatch):
    """A graph with its weights beside it."""
    monkeypatch.setattr(sheet, "INLINE", 0)
    folder = tmp_path / "export" / "onnx"
    folder.mkdir(parents=True)
    decoder.embedding(anatomy.read(load(llama))).write(folder / "e.onnx")
    return folder / "e.onnx"


def pointed(graph, **facts: str) -> None:
    """Rewrites what the graph says of its weight's place."""
    model = onnx.load(str(graph), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = facts.get(entry.key, entry.value)
    graph.write_bytes(model.SerializeToString())


def test_a_whole_one_passes(graph):
    outside.check(graph)


@pytest.mark.parametrize(
    "place", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:\\secret", ""]
)
def test_places_outside_are_refused(graph, place):
    (graph.parent.parent / "secret").write_bytes(b"x" * 100_000)
    pointed(graph, location=place)
    with pytest.raises(ModelError, match="outside its folder"):
        outside.check(graph)


def test_a_link_outside_is_refused(graph, tmp_path):
    beside = graph.with_name("e.onnx_data")
    beside.rename(tmp_path / "secret")
    beside.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="link out of its folder"):
        outside.check(graph)


def test_within_a_constant_too(graph):
    model = onnx.load(str(graph), load_external_data=False)
    held = model.graph.initializer.pop()
    held.external_data[0].value = "../secret"
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=held))
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder"):
        outside.check(graph)


def test_within_a_function_too(graph):
    model = onnx.load(str(graph), load_external_data=False)
    held = model.graph.initializer[0]
    held.external_data[0].value = "../secret"
    node = onnx.helper.make_node("Constant", [], ["c"], value=held)
    opset = [onnx.helper.make_opsetid("", 14)]
    model.functions.append(onnx.helper.make_function("own", "f", [], ["c"], [node], opset))
    del model.graph.initializer[:]
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder"):
        outside.check(graph)


def test_missing_and_short_weights_are_refused(graph):
    beside = graph.with_name("e.onnx_data")
    beside.write_bytes(beside.read_bytes()[:-1])
    with pytest.raises(ModelError, match="cut short"):
        outside.check(graph)
    for offset in ("-99999999", "-4096", "x"):
        pointed(graph, offset=offset)
        with pytest.raises(ModelError, match="cut short"):
            outside.check(graph)
    beside.unlink()
    with pytest.raises(ModelError, match=r"e\.onnx_data is missing"):
        outside.check(graph)


def test_what_is_no_graph_is_refused(graph, monkeypatch):
    graph.write_bytes(b"\xff" * 1000)
    with pytest.raises(ModelError, match="no readable ONNX graph"):
        outside.check(graph)
    graph.write_bytes(b"")
    with pytest.raises(ModelError, match="holds no graph"):
        outside.check(graph)
    graph.write_bytes(b"\xff" * 1000)
    monkeypatch.setattr(outside, "MOST", 1000)
    with pytest.raises(ModelError, match="larger than 2 GB"):
        outside.check(graph)
