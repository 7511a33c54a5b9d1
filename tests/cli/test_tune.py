"""slimsearch tune, as it is typed."""

import json

from slimsearch.record.candidate import ProjectorStep


def test_a_run_is_tuned_with_its_own_pairs(slimsearch, flags, small, tmp_path):
    run, out = tmp_path / "run", tmp_path / "tuned"
    assert slimsearch("run", *flags(small, rounds=1, out=run)).code == 0
    said = slimsearch("tune", run, "--final-steps", 4, "--out", out)
    assert said.code == 0, said.err
    assert "before" in said.out
    assert f"Wrote {out}." in said.out
    told = json.loads((out / "slimsearch.json").read_text())
    assert told["base"] == small.model
    again = slimsearch("tune", run, "--out", out)
    assert again.code == 4
    assert "exists already" in again.err
    hopeless = ("--projector-rate", 0, "--final-steps", 1)
    said = slimsearch("tune", run, *hopeless, "--out", tmp_path / "same")
    assert said.code == 0
    assert "stays as it was" in said.out
    said = slimsearch("tune", run, *hopeless, "--out", tmp_path / "json", "--json")
    told = json.loads(said.out)
    assert not ProjectorStep(**told["step"]).kept
    assert told["folder"] == str(tmp_path / "json")
