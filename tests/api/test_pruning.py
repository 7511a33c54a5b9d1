"""One policy, applied exactly and written."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from slimsearch.api import pruning
from slimsearch.errors import PolicyError, RunError
from slimsearch.plugins import names
from slimsearch.searching.watch import Watch


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


@pytest.mark.parametrize("solver", [name for name in names("solvers") if name != "sparsegpt"])
def test_every_solver_prunes_streamed_as_it_does_resident(small, tmp_path, solver):
    chosen = replace(small, policy="uniform", solver=solver)
    pruning.prune(chosen, tmp_path / "resident", Watch())
    pruning.prune(replace(chosen, stream=True), tmp_path / "streamed", Watch())
    one, two = (
        load_file(tmp_path / kind / "model.safetensors") for kind in ("resident", "streamed")
    )
    assert all(torch.equal(weight, two[key]) for key, weight in one.items())


@pytest.mark.parametrize("stream", [False, True])
def test_weights_can_be_counted_as_the_published_code_does(small, tmp_path, stream):
    """floor(n * ratio) + 1 of every block of 128 columns, and a row's 48 columns are one."""
    chosen = replace(small, policy="uniform", ratio=0.3, reference_count=True, stream=stream)
    done = pruning.prune(chosen, tmp_path / "out", Watch())
    facts = json.loads((tmp_path / "out" / "slimsearch.json").read_text())["matrices"]
    sizes = {"down": 32 * 48, "gate": 48 * 32, "up": 48 * 32}
    for matrix, share in facts.items():
        size = sizes.get(matrix.rpartition(".")[2], 32 * 32)
        assert share * size == int(size * 0.3) + 1
    assert done.sparsity > 0.3


def test_one_mask_for_several_sets_is_another_mask(small, tmp_path):
    other = tiny.pairs(tmp_path / "other", 12, turns=2)
    text = tiny.text(tmp_path / "more.txt", seed=7)
    chosen = replace(small, policy="uniform", solver="alpha_subnet")
    pruned = {}
    for name, changes in {
        "two": {},
        "more": {"also": f"{other}, {text}"},
        "wanda": {"solver": "wanda"},
    }.items():
        pruning.prune(replace(chosen, **changes), tmp_path / name, Watch())
        pruned[name] = load_file(tmp_path / name / "model.safetensors")
    key = "model.language_model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(pruned["two"][key], pruned["more"][key])
    assert not torch.equal(pruned["two"][key], pruned["wanda"][key])


def test_a_weight_that_stays_is_not_lost_to_float16(load, small, tmp_path):
    """Weights of about 1e-8 round to zero there, and the count would be off."""
    model = tiny.llava(tmp_path / "model", dtype=torch.float16)
    faint = load_file(model / "model.safetensors")
    key = "model.language_model.layers.1.mlp.down_proj.weight"
    smallest = 2.0**-24
    faint[key] = torch.where(torch.rand(32, 48) < 0.5, smallest, -smallest).half()
    save_file(faint, model / "model.safetensors", metadata={"format": "pt"})
    chosen = replace(small, model=str(model), policy="uniform")
    for stream in (False, True):
        out = tmp_path / f"{stream}"
        pruning.prune(replace(chosen, stream=stream), out, Watch())
        weight = load_file(out / "model.safetensors")[key]
        assert int((weight == 0).sum()) == weight.numel() // 2


def test_a_raised_damping_is_told_and_recorded(small, tmp_path):
    """Fewer tokens than columns and no damping: the Hessian is singular."""
    chosen = replace(small, policy="uniform", pairs="none", segments=1, damping=0.0)
    for stream in (False, True):
        watch = tiny.Notes()
        out = tmp_path / f"{stream}"
        pruning.prune(replace(chosen, stream=stream), out, watch)
        raised = json.loads((out / "slimsearch.json").read_text())["raised_damping"]
        assert raised["blocks.0.q"] == 0.001
        assert len(raised) == 14
        assert any("blocks.0.q to 0.001" in note for note in watch.notes)
