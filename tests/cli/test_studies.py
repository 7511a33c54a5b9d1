"""slimsearch compare and sweep, as they are typed."""

import json


def test_a_comparison_and_a_sweep_print_their_tables(slimsearch, flags, small, tmp_path):
    words = [word for word in flags(small, rounds=1, candidates=2, survivors=2, model="demo")]
    out = tmp_path / "compared"
    said = slimsearch(
        "compare", small.model, *words, "--only", "uniform-random", "--out", out
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "uniform-random" in said.out
    assert json.loads((out / "compare.json").read_text())["model"] == small.model
    said = slimsearch("compare", small.model, *words, "--only", "best", "--out", out)
    assert said.code == 2
    assert "no row 'best'" in said.err
    swept = [w for w in flags(small, model="demo", segments=0, segment_length=0, policy="uniform",
                              projector_steps=0)]  # fmt: skip
    said = slimsearch(
        "sweep", small.model, *swept, "--segments", "2,3", "--segment-lengths", "16",
        "--out", tmp_path / "swept", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert [row["name"] for row in json.loads(said.out)["rows"]] == ["2x16", "3x16"]
