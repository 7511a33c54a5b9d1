"""Every file in architectures/ against the contract: parts are where it says, keys are found."""

from functools import partial
from itertools import pairwise

import pytest
import tiny
import tiny_families
import torch
from safetensors.torch import load_file

from slimsearch.contracts import Architecture
from slimsearch.model import checkpoint, loading, vlm
from slimsearch.plugins import about, find, names

ARCHITECTURES = names("architectures")
OLD = {"old_names": True, "dtype": torch.bfloat16, "shards": 3}  # as LLaVA 1.5 comes
SHAPES = [
    *((name, {}) for name in ARCHITECTURES),
    *((name, {"kv_heads": 3, "tied": True, "blocks": 3}) for name in ARCHITECTURES),
    *((name, {"dtype": torch.bfloat16, "shards": True}) for name in ("llava", "qwen2_vl", "opt")),
    ("llava", OLD),
]
every_shape = pytest.mark.parametrize(("name", "shape"), SHAPES)


@pytest.fixture
def model(name, shape, tmp_path) -> vlm.VLM:
    make = tiny.llava if shape is OLD else partial(tiny_families.make, name)
    return loading.load(checkpoint.find(str(make(tmp_path / "model", **shape))), "cpu", "auto")


def test_all_are_found():
    assert set(ARCHITECTURES) >= {"llama", "llava"}
    assert all(about("architectures", name) for name in ARCHITECTURES)
    made = {*tiny_families.TEXT, *tiny_families.VISION}
    assert made == set(ARCHITECTURES), "tests/tiny_families.py builds no such model yet"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_says_where_its_parts_are(name):
    found = find("architectures", name)()
    assert isinstance(found, Architecture)
    roles = [role for stage in found.stages or () for role in stage]
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
    assert len(model.matrices) == len(linears)
    for matrix in model.matrices:
        weight = model.linear(matrix.name).weight
        assert weight.shape == (matrix.rows, matrix.columns)
        assert torch.equal(model.from_disk(matrix.name), weight)


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
    for stage in model.stages:
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
    for name, weight in model.weights().items():
        assert torch.equal(disk[model.disk_name(model.tunable[name])].float(), weight)
    assert model.disk_dtype == shape.get("dtype", torch.float32)


@every_shape
def test_vision_and_projector_are_modules_without_matrices_of_ours(model, name, shape):
    ours = {id(model.linear(matrix.name)) for matrix in model.matrices}
    for part in [model.sight.tower, *model.sight.projectors.values()] if model.sees else ():
        assert list(part.parameters())
        assert not ours & {id(module) for module in part.modules()}
