"""One policy, applied exactly and written."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from slimsearch import pruning
from slimsearch.errors import PolicyError, RunError
from slimsearch.watch import Watch


@pytest.mark.parametrize("solver", ["sparsegpt", "wanda", "magnitude"])
def test_a_model_is_pruned_by_a_policy(small, llava, tmp_path, solver):
    file = tmp_path / "mine.toml"
    file.write_text('[layer_sparsity]\n"blocks.0" = 0.25\n"blocks.1.down" = 0.75\n')
    done = pruning.prune(replace(small, policy=str(file), solver=solver), tmp_path / "out", Watch())
    before = load_file(llava / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert set(before) == set(after)
    for key, weight in after.items():
        if ".layers.0." in key and "_proj" in key and "language_model" in key:
            assert int((weight == 0).sum()) == weight.numel() // 4
        elif "layers.1.mlp.down_proj" in key:
            assert int((weight == 0).sum()) == weight.numel() * 3 // 4
        else:
            assert torch.equal(weight, before[key]), key
    facts = json.loads((tmp_path / "out" / "slimsearch.json").read_text())
    assert facts["policy"] == {"layer_sparsity": {"blocks.0": 0.25, "blocks.1.down": 0.75}}
    assert [row.name for row in done.table] == ["dense", f"mine {solver}"]
    size = sum(weight.numel() for key, weight in before.items()
               if "language_model.layers" in key and "_proj" in key)  # fmt: skip
    zeros = (4 * 32 * 32 + 3 * 32 * 48) / 4 + 32 * 48 * 3 / 4
    assert facts["sparsity"] == pytest.approx(zeros / size)


def test_a_space_is_refused(small, tmp_path):
    with pytest.raises(PolicyError, match="slimsearch run"):
        pruning.prune(small, tmp_path / "out", Watch())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_refused(small, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="exists already"):
        pruning.prune(replace(small, policy="uniform"), tmp_path / "out", Watch())


def test_pruning_repeats_itself(small, tmp_path):
    for name in ("one", "two"):
        pruning.prune(replace(small, policy="uniform"), tmp_path / name, Watch())
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_what_is_not_pruned_keeps_its_bytes_whatever_the_dtype(small, llava, tmp_path):
    """A fp32 checkpoint pruned in bf16 passes: the other matrices are not rounded on the way."""
    file = tmp_path / "mine.toml"
    file.write_text('[layer_sparsity]\n"blocks.0" = 0.5\n')
    pruning.prune(replace(small, policy=str(file), dtype="bfloat16"), tmp_path / "out", Watch())
    before = load_file(llava / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    changed = {key for key, weight in after.items() if not torch.equal(weight, before[key])}
    assert len(changed) == 7
    assert all("language_model.layers.0." in key for key in changed)


@pytest.mark.parametrize("shape", ["llava", "llava_16"])
def test_streamed_it_comes_out_as_it_does_resident(small, tmp_path, request, shape):
    """One block in memory at a time changes where weights are, not what they become."""
    chosen = replace(small, model=str(request.getfixturevalue(shape)), policy="uniform")
    pruning.prune(chosen, tmp_path / "one", Watch())
    pruning.prune(replace(chosen, stream=True), tmp_path / "two", Watch())
    for file in sorted((tmp_path / "one").glob("*.safetensors")):
        one, two = load_file(file), load_file(tmp_path / "two" / file.name)
        assert set(one) == set(two)
        for key, weight in one.items():
            assert torch.equal(weight == 0, two[key] == 0), key
            assert torch.equal(weight, two[key]), key
