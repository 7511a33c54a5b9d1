"""slimsearch flops: tables and JSON, from a configuration alone."""

import json

import tiny


def test_the_papers_table_is_printed_beside_ours(slimsearch):
    said = slimsearch("flops", "--paper")
    assert said.code == 0
    for figure in ("16679.8", "2712.8", "413.5", "LayerCut N=30"):
        assert figure in said.out
    cells = json.loads(slimsearch("flops", "--paper", "--json").out)["cells"]
    assert len(cells) == 15
    assert all(abs(cell["formula"] / cell["published"] - 1) < 0.01 for cell in cells)


def test_a_policy_is_held_against_the_dense_model(slimsearch, tmp_path):
    folder = tiny.llava(tmp_path / "model")
    (folder / "model.safetensors").unlink()  # a configuration is enough
    words = ("flops", folder, "--visual-tokens", "4,8", "--text-tokens", 9, "--json")
    dense, thin = (
        json.loads(slimsearch(*words, *more).out)["rows"] for more in ((), ("--policy", "uniform"))
    )
    assert [row["visual_tokens"] for row in dense] == [4, 8]
    for before, after in zip(dense, thin, strict=True):
        assert before["prompt"]["total"]["dense"] == before["prompt"]["dense_model"]
        assert after["prompt"]["total"]["dense"] == before["prompt"]["dense_model"]
        for part in ("attention projections", "FFN"):
            assert after["prompt"][part]["left"] == 0.5 * before["prompt"][part]["left"]
        assert after["cache_bytes"] == before["cache_bytes"] > 0


def test_what_cannot_be_counted_is_refused(slimsearch, tmp_path):
    folder = tiny.llava(tmp_path / "model")
    assert "Say which model" in slimsearch("flops").err
    ranged = slimsearch("flops", folder, "--policy", "per_layer")
    assert ranged.code == 3
    assert "still has ranges" in ranged.err
    assert slimsearch("flops", folder, "--visual-tokens", "many").code == 2
    assert slimsearch("flops", tmp_path / "nowhere").code == 3
