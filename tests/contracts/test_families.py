"""Every file in families/ against the contract of a family, on a tiny model."""

from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch.contracts import Family
from slimsearch.errors import PolicyError
from slimsearch.model.conversation import text_batches
from slimsearch.plugins import about, find, names
from slimsearch.policy import Body, Matrix, PolicyFile
from slimsearch.searching.space import build
from slimsearch.surgery import level_store
from slimsearch.surgery.level_store import LevelStore

FAMILIES = names("families")
every_family = pytest.mark.parametrize("name", FAMILIES)
of_sparsity = pytest.mark.parametrize("name", ["layer_sparsity"])
RANGES = {  # for each family some tables that name parts of a model of two blocks
    "layer_sparsity": [
        {"blocks.*": "0.25,0.5,0.75"},
        {"blocks.*.*": "0.25,0.5,0.75"},
        {"blocks.0": 0.5, "blocks.1": "0.25,0.5,0.75"},
        {"blocks.*": "0.25,0.5,0.75", "blocks.*.down": 0.5},
        {"blocks.*": "0.25,0.5,0.75", "blocks.*.q": 0.5},
        {"blocks.*.q": 0.75, "blocks.*": "0.25,0.5"},
    ],
    "skip_block": [
        {"blocks.*": "0,1"},
        {"blocks.*": "0,1", "tokens": "T"},
        {"start": "0,1", "interval": "1,2", "tokens": "P+T"},
        {"interval": 1, "blocks.0": "0,1"},
    ],
    "skip_ffn": [{"blocks.*": "0,1", "tokens": "T"}, {"start": 1}],
    "skip_attention": [{"blocks.*": "0,1", "tokens": "T"}, {"start": "0..1 by 1"}],
    "parallel_ffn_attention": [{"blocks.*": "0,1"}, {"start": 0, "interval": 2}],
    "parallel_blocks": [{"blocks.*": "0,1"}, {"start": 0, "combine": "sum"}],
    "attention_cut": [{"blocks.*": "0,1"}, {"blocks.*": 1, "window": "0..2 by 1"}],
    "layer_cut": [{"last": "0..2"}],
    "merge_tokens": [{"keep": "0,1.5"}, {"plus": "0,1"}],
}
MATRICES = tuple(
    Matrix(f"blocks.{block}.{role}", rows, columns)
    for block in range(2)
    for role, rows, columns in (
        ("q", 32, 32), ("k", 16, 32), ("v", 16, 32), ("o", 32, 32), ("gate", 48, 32),
        ("up", 48, 32), ("down", 32, 48),
    )
)  # fmt: skip
BODY = Body(MATRICES)


def test_all_are_found():
    assert set(FAMILIES) >= {"layer_sparsity"}
    assert all(about("families", name) for name in FAMILIES)
    assert all(issubclass(find("families", name), Family) for name in FAMILIES)
    assert set(RANGES) == set(FAMILIES), "say here what a new family's tables look like"


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A tiny model and a store of three levels of every matrix."""
    import tiny

    from slimsearch.model import checkpoint, loading
    from slimsearch.solvers.magnitude import Magnitude

    folder = tiny.llava(tmp_path_factory.mktemp("model") / "llava", kv_heads=2)
    model = loading.load(checkpoint.find(str(folder)), "cpu", "auto")
    batches = text_batches(torch.arange(64).view(2, 32) + 10, model.device, 1000)
    store = LevelStore(model)
    levels = {matrix.name: (0.25, 0.5, 0.75) for matrix in model.matrices}
    level_store.fill(store, model, batches, levels, Magnitude(), "both", lambda: None)
    return model, store


def bits(model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.model.state_dict().items()}


def said(model) -> torch.Tensor:
    """What the model makes of a picture with a question and an answer."""
    ids = torch.tensor([[1, 4, 4, 4, 4, *range(20, 40)]])
    kinds = torch.tensor([[1] + [3] * 4 + [1] * 10 + [2] * 10], dtype=torch.uint8)
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model.detours.tell(kinds)
    with torch.no_grad():
        return model.model(input_ids=ids, pixel_values=pixels, use_cache=False).logits


def cases(names=FAMILIES):
    return [(name, ranges) for name in names for ranges in RANGES[name]]


def test_the_matrices_above_are_the_tiny_models(held):
    assert held[0].matrices == MATRICES


@pytest.mark.parametrize(("name", "ranges"), cases())
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_genes_edits_removed_and_apply_agree(held, name, ranges, data):
    """What the budget thinks goes, what the family says goes, and the zeros on the model."""
    model, store = held
    family = find("families", name)()
    space = build(PolicyFile("test", "", {name: ranges}), {name: family}, BODY, 0.5, "")
    genes = tuple(data.draw(st.integers(0, len(gene.choices) - 1)) for gene in space.budget.genes)
    policy = space.decode(genes)
    edits = family.edits(policy.tables[name], BODY)
    total = sum(matrix.size for matrix in MATRICES)
    assert family.removed(edits, BODY) / total == pytest.approx(space.budget.removed(genes))
    family.apply(edits, model, store)
    zeros = sum(int((model.linear(m.name).weight == 0).sum()) for m in MATRICES)
    family.restore(model, store)
    assert zeros == pytest.approx(family.removed(edits, BODY), abs=len(MATRICES))


@pytest.mark.parametrize(("name", "ranges"), cases(["layer_sparsity"]))
def test_every_line_of_a_table_is_heeded(name, ranges):
    """The last line that names a part wins, also after genes and back."""
    family = find("families", name)()
    space = build(PolicyFile("test", "", {name: ranges}), {name: family}, BODY, 0.5, "")
    lowest = (0,) * len(space.genes)
    edits = family.edits(space.decode(lowest).tables[name], BODY)
    for matrix in MATRICES:
        said = None
        for glob, value in ranges.items():
            parts, block = glob.split("."), matrix.name.split(".")
            if all(p in ("*", b) for p, b in zip(parts, block, strict=False)):
                said = value
        wanted = float(said) if not isinstance(said, str) else float(said.split(",")[0])
        assert edits[matrix.name] == wanted, matrix.name


@of_sparsity
@settings(max_examples=100, deadline=None)
@given(
    keys=st.lists(
        st.sampled_from([
            "blocks.*", "blocks.*.*", "blocks.?.up", "blocks.[0-1]", "*.1.*", "blocks.*.d*",
            *(matrix.name for matrix in MATRICES), *(matrix.block for matrix in MATRICES),
        ]),
        unique=True,
    )
)  # fmt: skip
def test_the_last_line_wins_whatever_its_kind(name, keys):
    """By the definition: line after line, against the names of a matrix and of its block."""
    values = {key: 0.1 + 0.01 * place for place, key in enumerate(keys)}
    wanted = {}
    for matrix in MATRICES:
        for key, value in values.items():
            for part in (matrix.block, matrix.name):
                if part.count(".") == key.count(".") and fnmatchcase(part, key):
                    wanted[matrix.name] = value
    assert find("families", name)().edits(values, BODY) == wanted


@pytest.mark.parametrize(("name", "ranges"), cases())
def test_apply_and_restore_leave_everything_as_it_was(held, name, ranges):
    model, store = held
    before, answer = bits(model), said(model)
    family = find("families", name)()
    words = {key: value for key, value in ranges.items() if key in family.words}
    genes = family.genes(ranges, BODY, 0.5)
    for choice in (0, -1):
        values = {gene.key: gene.choices[choice] for gene in genes}
        family.apply(family.edits({**words, **values}, BODY), model, store)
    assert not torch.allclose(said(model), answer, atol=1e-4)
    changed = [key for key, weight in bits(model).items() if not torch.equal(weight, before[key])]
    assert all("vision" not in key and "projector" not in key for key in changed)
    assert bool(changed) == (name == "layer_sparsity")
    for _ in range(2):
        family.restore(model, store)
        assert all(torch.equal(weight, before[key]) for key, weight in bits(model).items())
        assert torch.equal(said(model), answer)


@every_family
def test_no_edits_remove_nothing(held, name):
    model, store = held
    before, answer = bits(model), said(model)
    family = find("families", name)()
    assert family.removed({}, BODY) == 0
    family.apply({}, model, store)
    assert all(torch.equal(weight, before[key]) for key, weight in bits(model).items())
    assert torch.equal(said(model), answer)


@every_family
@pytest.mark.parametrize("glob", ["blocks.7", "layers.*", "blocks", "blocks.*.query", "*.*.*.*"])
def test_a_line_that_names_nothing_is_refused(name, glob):
    with pytest.raises(PolicyError, match=f"{name}.*(names no|has no option '{glob}')"):
        find("families", name)().genes({glob: 1, "blocks.0": 1}, BODY, 0.5)


@every_family
def test_genes_have_choices_in_order_and_sizes_that_add_up(name):
    for ranges in RANGES[name]:
        genes = find("families", name)().genes(ranges, BODY, 0.5)
        weights = sum(matrix.size for matrix in MATRICES) * (name == "layer_sparsity")
        assert sum(gene.size for gene in genes) == weights
        assert len({gene.key for gene in genes}) == len(genes)
        for gene in genes:
            assert gene.family == name
            assert gene.choices
            assert list(gene.choices) == sorted(set(gene.choices))
