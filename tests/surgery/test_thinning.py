"""Models that run a route, written and read again: what transformers makes of them, and we."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_families
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from slimsearch import artefact, plugins, policy  # fmt: skip
from slimsearch.api import counting, exporting, pruning, runs, tuning  # fmt: skip
from slimsearch.errors import PolicyError
from slimsearch.model import checkpoint, loading  # fmt: skip
from slimsearch.routes.kinds import TEXT
from slimsearch.routes.route import EVERY, PICTURES, Route, Step, plain, together
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings

BLOCKS = 4
GONE = Step(skip_block=EVERY)
FAMILIES = ["llama", "gemma3_text", "qwen2", "opt", "llava"]


def opened(folder, dtype: str = "float32"):
    return loading.load(checkpoint.find(str(folder)), "cpu", dtype)


def written(vlm, route, folder):
    """The folder that hf writes of a model on a route, and that model's logits."""
    vlm.reroute("test", route)
    artefact.write(vlm, folder, artefact.facts_of(vlm), {"hf": plugins.find("exporters", "hf")()})
    said = logits(vlm)
    vlm.reroute("test", plain(len(vlm.blocks)))
    return said


def logits(vlm):
    ids = torch.arange(20, 32).view(2, 6)
    return logits_of(vlm.model, ids)


@torch.no_grad()
def logits_of(model, ids):
    return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_skipped_blocks_are_left_out_and_skipped_halves_are_zeros(family, tmp_path):
    """Plain from_pretrained gives what the route gives; blocks are fewer."""
    source = tiny_families.make(
        family, tmp_path / "source", blocks=BLOCKS, heads=4, kv_heads=2, shards=family == "llama"
    )
    vlm = opened(source)
    dense = logits(vlm)
    route = Route((Step(skip_ffn=EVERY), GONE, Step(), Step(skip_attention=EVERY)))
    said = written(vlm, route, tmp_path / "out")
    assert not torch.allclose(said, dense, atol=1e-3)
    loader = AutoModelForCausalLM if family != "llava" else AutoModelForImageTextToText
    model, info = loader.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert len(model.get_decoder().layers) == BLOCKS - 1
    torch.testing.assert_close(logits_of(model.eval(), torch.arange(20, 32).view(2, 6)), said)
    ours = opened(tmp_path / "out")
    assert ours.route.steps == (route.steps[0], route.steps[2], route.steps[3])
    torch.testing.assert_close(logits(ours), said)
    record = json.loads((tmp_path / "out" / "slimsearch.json").read_text())
    assert set(record["matrices"]) == {matrix.name for matrix in ours.matrices}
    assert record["matrices"] == {
        m.name: float((ours.linear(m.name).weight == 0).float().mean()) for m in ours.matrices
    }
    assert "note" not in record["exports"]["hf"]


def test_what_only_we_can_follow_is_said(tmp_path):
    vlm = opened(tiny_families.make("llava", tmp_path / "source", blocks=BLOCKS))
    route = Route((Step(skip_block=frozenset({TEXT})), GONE, Step(window=0), Step(PICTURES)))
    written(vlm, route, tmp_path / "out")
    ours = opened(tmp_path / "out")
    assert ours.route == Route((route.steps[0], route.steps[2], route.steps[3]))
    assert "from_pretrained" in artefact.record_of(tmp_path / "out")["exports"]["hf"]["note"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "plain from_pretrained runs every block" in card
    assert "AutoModel" not in card
    counted = counting.report(Settings(model=str(tmp_path / "out")), "", (16,), 8)
    assert counted.rows[0].cache_bytes < counted.rows[0].dense_cache_bytes


def test_a_copy_of_a_copy_goes_the_same_way(tmp_path):
    """What a folder says of its route is kept by whoever writes it again."""
    vlm = opened(tiny_families.make("llava", tmp_path / "source", blocks=BLOCKS))
    written(vlm, Route((Step(window=2), GONE, GONE, Step())), tmp_path / "one")
    written(opened(tmp_path / "one"), Route((Step(), Step(PICTURES))), tmp_path / "two")
    assert opened(tmp_path / "two").route == Route((Step(window=2), Step(PICTURES)))


def test_prune_takes_every_family_at_once(small, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[skip_block]\n"blocks.0" = 1\ntokens = "T"\n[attention_cut]\n"blocks.*" = 1\nwindow = 1\n'
        '[layer_sparsity]\n"blocks.1" = 0.5\n'
    )
    chosen = replace(small, policy=str(file))
    done = pruning.prune(chosen, tmp_path / "out", Watch())
    facts = json.loads((tmp_path / "out" / "slimsearch.json").read_text())
    assert facts["policy"]["skip_block"] == {"tokens": "T", "blocks.0": 1}
    assert facts["route"]["blocks"]["0"] == {"skip_block": "T", "window": 1}
    dense, pruned = done.table
    assert pruned.figures != dense.figures
    # Weights were solved for what comes along the route, so they differ from those without it.
    file.write_text('[layer_sparsity]\n"blocks.1" = 0.5\n')
    pruning.prune(chosen, tmp_path / "other", Watch())
    one, two = (opened(tmp_path / name).linear("blocks.1.q").weight for name in ("out", "other"))
    assert int((one == 0).sum()) == int((two == 0).sum())
    assert not torch.equal(one, two)
    file.write_text('[skip_ffn]\n"blocks.0" = 1\n')
    with pytest.raises(PolicyError, match=r"\[skip_ffn\] changes how blocks run.*--stream"):
        pruning.prune(replace(chosen, stream=True), tmp_path / "third", Watch())


def test_what_no_token_goes_through_stops_nobody(small, tmp_path):
    """No policy prunes it; in a model that came so, a search may ask for any level of it."""
    file = tmp_path / "mine.toml"
    file.write_text(
        '[layer_sparsity]\n"blocks.*" = 0.5\n[skip_ffn]\n"blocks.0" = 1\n'
        '[skip_attention]\n"blocks.1" = 1\n'
    )
    done = pruning.prune(replace(small, policy=str(file)), tmp_path / "out", Watch())
    assert done.table[-1].sparsity == pytest.approx(0.25, abs=0.01)
    again = replace(small, model=str(tmp_path / "out"), rounds=1, out=str(tmp_path / "run"))
    found = runs.search(again)
    assert all(score.ok for round_ in found.rounds for score in round_.scores)


def test_the_torch_runtime_follows_the_route(small, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[skip_block]\n"blocks.1" = 1\n[layer_cut]\nlast = 2\n')
    pruning.prune(replace(small, policy=str(file)), tmp_path / "out", Watch())
    session = plugins.find("runtimes", "torch")().open(tmp_path / "out")
    ids = np.array([[1, *[tiny.IMAGE] * 4, 30, 31, 32]])
    embeds, ones = session.embed(ids), np.ones_like(ids)
    session.tell(np.array([[1, 3, 3, 3, 3, 1, 1, 1]], np.uint8))
    session.step(embeds, ones, np.arange(8)[None])
    (layer,) = session._cache.layers
    assert layer.keys.shape[2] == 4  # one block is left, which is the last: without pictures


def test_a_space_is_exported_by_nobody(small, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[skip_block]\n"blocks.*" = "0,1"\n')
    with pytest.raises(PolicyError, match="still has ranges"):
        exporting.export(
            small.model, ["hf"], tmp_path / "out", pruned_by=replace(small, policy=str(file))
        )


def test_tuning_goes_along_the_route_and_keeps_it(small, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[attention_cut]\n"blocks.*" = 1\n[skip_ffn]\nstart = 1\ntokens = "T"\n')
    pruning.prune(replace(small, policy=str(file)), tmp_path / "out", Watch())
    changes = {
        "pairs": small.pairs, "pair_count": 14, "final_steps": 3, "projector_rate": 1e-3,
        "projector_lessons": "answers", "device": "cpu", "dtype": "float32",
    }  # fmt: skip
    done = tuning.tune(str(tmp_path / "out"), changes, tmp_path / "tuned", "", Watch())
    before, after = opened(tmp_path / "out"), opened(tmp_path / "tuned")
    assert after.route == before.route
    assert after.route
    if done.step.kept:
        assert not torch.equal(*(
            next(iter(vlm.weights(vlm.projector_parameters).values())) for vlm in (before, after)
        ))  # fmt: skip


def test_one_search_holds_genes_of_several_families(small, tmp_path):
    """Sparsity, skips and cuts together: the champion's folder runs as its policy says."""
    file = tmp_path / "mine.toml"
    file.write_text(
        '[layer_sparsity]\n"blocks.*" = "-0.2..+0.2 by 0.1"\n'
        '[skip_ffn]\n"blocks.*" = "0,1"\ntokens = "T"\n'
        '[attention_cut]\n"blocks.*" = "0,1"\n[layer_cut]\nlast = "0..2"\n'
    )
    found = runs.search(replace(small, policy=str(file), out=str(tmp_path / "run")))
    assert set(found.policy.tables) == {"layer_sparsity", "skip_ffn", "attention_cut", "layer_cut"}
    assert found.policy.tables["skip_ffn"]["tokens"] == "T"
    best = policy.read(tmp_path / "run" / "best.toml")
    assert best.tables == found.policy.tables
    vlm = opened(tmp_path / "run" / "model")
    families = {name: plugins.find("families", name)() for name in best.tables}
    edits = [family.edits(best.tables[name], vlm.body) for name, family in families.items()]
    assert vlm.route == together(edits, vlm.body.blocks)
    assert abs(found.sparsity - 0.5) < 0.02
