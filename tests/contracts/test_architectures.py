"""Every file in architectures/ against the contract: parts are where it says, keys are found."""

from itertools import pairwise

import pytest
import tiny
import torch
from safetensors.torch import load_file

from slimsearch import checkpoint, loading, vlm
from slimsearch.contracts import Architecture
from slimsearch.plugins import about, find, names

ARCHITECTURES = names("architectures")
MAKERS = {"llama": tiny.llama, "llava": tiny.llava}
SHAPES = [
    ("llama", {}), ("llama", {"kv_heads": 2, "tied": True, "shards": 2}),
    ("llava", {}), ("llava", {"kv_heads": 2, "tied": True}),
    ("llava", {"old_names": True, "dtype": torch.bfloat16, "shards": 3}),
]  # fmt: skip
every_shape = pytest.mark.parametrize(("name", "shape"), SHAPES)


@pytest.fixture
def model(name, shape, tmp_path) -> vlm.VLM:
    folder = MAKERS[name](tmp_path / "model", **shape)
    return loading.load(checkpoint.find(str(folder)), "cpu", "auto")


def test_all_are_found():
    assert set(ARCHITECTURES) >= {"llama", "llava"}
    assert all(about("architectures", name) for name in ARCHITECTURES)
    assert set(MAKERS) == set(ARCHITECTURES), "tests/tiny.py builds no such model yet"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_says_where_its_parts_are(name):
    found = find("architectures", name)()
    assert isinstance(found, Architecture)
    roles = [role for stage in found.stages for role in stage]
    assert len(roles) == len(set(roles))
    assert all("." not in role for role in roles)


@every_shape
def test_every_linear_layer_of_the_decoders_blocks_is_a_matrix(model, name, shape):
    linears = {
        id(module): path
        for path, module in model.decoder.layers.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert {id(model.linear(m.name)) for m in model.matrices} == set(linears)
    assert len(model.matrices) == 2 * 7
    for matrix in model.matrices:
        assert model.linear(matrix.name).weight.shape == (matrix.rows, matrix.columns)
    kv = shape.get("kv_heads", 4) * 8
    assert model.matrices[1] == vlm.Matrix("blocks.0.k", kv, 32)


@every_shape
def test_matrices_come_in_the_order_in_which_they_are_computed(model, name, shape):
    order, hooks = [], []
    for matrix in model.matrices:
        linear = model.linear(matrix.name)
        hooks.append(linear.register_forward_hook(lambda *_, n=matrix.name: order.append(n)))
    model.decoder(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    assert order == [matrix.name for matrix in model.matrices]


@every_shape
def test_matrices_of_one_stage_share_their_input(model, name, shape):
    seen = {}
    for matrix in model.matrices:
        model.linear(matrix.name).register_forward_pre_hook(
            lambda _, given, n=matrix.name: seen.__setitem__(n, given[0])
        )
    model.decoder(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    inputs = []
    for stage in model.architecture.stages:
        first, *others = [seen[f"blocks.1.{role}"] for role in stage]
        assert all(torch.equal(first, other) for other in others)
        inputs.append(first)
    for one, two in pairwise(inputs):
        assert one.shape != two.shape or not torch.equal(one, two)


@every_shape
def test_our_names_and_the_keys_on_disk_mean_the_same_numbers(model, name, shape):
    disk = {}
    for file in model.checkpoint.folder.glob("*.safetensors"):
        disk |= load_file(file)
    assert set(disk) == set(model.checkpoint.shards)
    keys = [model.disk_name(model.matrix_parameter(matrix.name)) for matrix in model.matrices]
    assert len(set(keys)) == len(keys)
    for matrix, key in zip(model.matrices, keys, strict=True):
        assert torch.equal(disk[key].float(), model.linear(matrix.name).weight)
    if model.projector is not None:
        for key, weight in model.projector.state_dict().items():
            parameter = f"{model.architecture.projector}.{key}"
            assert torch.equal(disk[model.disk_name(parameter)].float(), weight)
    assert model.disk_dtype == shape.get("dtype", torch.float32)


@every_shape
def test_vision_and_projector_are_modules_without_matrices_of_ours(model, name, shape):
    ours = {id(model.linear(matrix.name)) for matrix in model.matrices}
    for path in (model.architecture.vision, model.architecture.projector):
        if path is not None:
            part = model.model.get_submodule(path)
            assert list(part.parameters())
            assert not ours & {id(module) for module in part.modules()}
