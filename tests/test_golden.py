"""Run folders of earlier releases: read, shown, exported, and gone on with or refused by name."""

import json
import shutil
from pathlib import Path

import pytest

from slimsearch import policy, version
from slimsearch.api import exporting, runs
from slimsearch.errors import RunError
from slimsearch.record import history

GOLDEN = sorted(path for path in (Path(__file__).parent / "golden").iterdir() if path.is_dir())


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request, tmp_path) -> Path:
    """A release's folders, moved here, model and all."""
    place = shutil.copytree(request.param, tmp_path / "golden")
    for run in ("finished", "interrupted"):
        file = place / run / "settings.toml"
        file.write_text(file.read_text("utf-8").replace("/tmp/slimsearch-golden", str(place)))
    return place


def test_there_are_some():
    assert GOLDEN


def test_status_and_show_read_it(golden):
    done, halfway = history.read(golden / "finished"), history.read(golden / "interrupted")
    assert history.summary(done, 2).startswith("finished; 2 of 2 rounds closed")
    assert history.summary(halfway, 2).startswith("interrupted; 1 of 2 rounds closed, 3 ")
    assert [row["name"] for row in done.end["table"]] == ["dense", "uniform sparsegpt", "searched"]
    done.check_written("")
    found = policy.read(golden / "finished" / "best.toml")
    assert set(found.tables["layer_sparsity"]) == {
        f"blocks.0.{role}" for role in ("q", "k", "v", "o", "gate", "up", "down")
    }


def test_a_finished_one_is_exported_and_not_gone_on_with(golden):
    exporting.export(str(golden / "finished"), ["hf"], golden / "out")
    one, two = (
        place / "model.safetensors" for place in (golden / "finished/model", golden / "out")
    )
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(RunError, match="is finished"):
        runs.resume(golden / "finished")


def test_an_unfinished_one_names_what_differs_and_goes_on_if_told_to(golden, monkeypatch):
    run = golden / "interrupted"
    monkeypatch.setattr(version, "__version__", "99")
    with pytest.raises(RunError, match=r"versions\.slimsearch was '[0-9.]+', is '99'"):
        runs.resume(run)
    found = runs.resume(run, allow_drift=True)
    assert any(line.startswith("versions.slimsearch") for line in found.drift)
    assert json.loads((found.model / "slimsearch.json").read_text())["drift"] == list(found.drift)
