"""What a DeepSparse export records of its graphs, read again before the engine is started."""

import json
from types import SimpleNamespace

import pytest
import tiny

from slimsearch.api import exporting
from slimsearch.api.exporting import Choices
from slimsearch.errors import ModelError
from slimsearch.runtimes import deepsparse


@pytest.fixture
def exported(llava, tmp_path, monkeypatch):
    """Exports with so much room; the engine is not started where they are opened."""
    monkeypatch.setattr(deepsparse, "Guest", lambda *_: SimpleNamespace(process=None))

    def made(room: int):
        exporting.export(str(llava), ["deepsparse"], tmp_path / "out", Choices(room=room))
        return tmp_path / "out"

    return made


@pytest.mark.parametrize(("room", "said"), [(64, "--room it holds up to 256"), (256, "")])
def test_an_export_that_holds_less_than_its_model_says_so(exported, room, said):
    session = deepsparse.DeepSparse().open(exported(room))
    assert session.room == room
    assert said in session.wider
    assert bool(said) == bool(session.wider)


def test_a_damaged_graph_is_refused_before_a_word_is_said(exported):
    folder = exported(64)
    file = folder / "deepsparse" / "decode.onnx"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"decode\.onnx is no readable ONNX graph"):
        deepsparse.DeepSparse().open(folder)


@pytest.mark.parametrize("name", ["weights.bin", "prefill_32.onnx", "vision_encoder.onnx"])
def test_a_file_that_is_not_as_it_was_written_is_refused(exported, name):
    folder = exported(64)
    tiny.flip(folder / "deepsparse" / name)
    with pytest.raises(ModelError, match=rf"{name} is damaged.*--to deepsparse"):
        deepsparse.DeepSparse().open(folder)


def test_a_record_of_no_shapes_is_refused(exported):
    folder = exported(64)
    file = folder / "slimsearch.json"
    whole = json.loads(file.read_text())
    for key in ("prompts", "blocks", "cache", "room", "windows"):
        for value in (None, "x", 0, -1, 1.5, [], [0], ["x"], {}, 10**9):
            told = json.loads(json.dumps(whole))
            told["exports"]["deepsparse"][key] = value
            file.write_text(json.dumps(told))
            if (key, value) == ("blocks", 10**9):
                continue  # a number that could be: the engine refuses the graphs
            with pytest.raises(ModelError, match=r"slimsearch\.json does not say how the graphs"):
                deepsparse.DeepSparse().open(folder)
