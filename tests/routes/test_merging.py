"""PruMerge against loops by its definition, and against a sequence that is written out shorter."""

import json
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_families
import torch

from slimsearch import plugins
from slimsearch.api import pruning, runs
from slimsearch.calibration import Pair, Turn
from slimsearch.errors import PolicyError
from slimsearch.model import checkpoint, conversation, loading
from slimsearch.model.decoding import Prompt, greedy
from slimsearch.model.resident import Resident
from slimsearch.routes.kinds import PADDING, PICTURE, TEXT
from slimsearch.routes.merging import Salience, merged
from slimsearch.routes.passage import Passage
from slimsearch.routes.route import PICTURES, Merge, Route, Step, plain
from slimsearch.searching.watch import Watch

BLOCKS = 3


def by_definition(features, attention, keys, keep, plus):
    """One picture, token by token."""
    tokens = len(attention)
    low, high = np.quantile(attention, 0.25), np.quantile(attention, 0.75)
    stays = {j for j in range(tokens) if attention[j] > high + keep * (high - low)}
    stays.add(int(np.argmax(attention)))
    count = plus * len(stays)
    if count:
        stays |= {int(p) for p in np.round(np.linspace(0, tokens - 1, min(count, tokens)))}
    groups = {i: [i] for i in stays}
    for j in set(range(tokens)) - stays:
        like = {i: keys[i] @ keys[j] / np.linalg.norm(keys[i]) / np.linalg.norm(keys[j])
                for i in stays}  # fmt: skip
        groups[max(like, key=like.get)].append(j)
    return {
        i: sum(attention[j] * features[j] for j in some) / sum(attention[j] for j in some)
        for i, some in groups.items()
    }


def test_a_group_that_nothing_attends_to_is_averaged_evenly():
    attention = torch.tensor([[0.9, 0.0, 0.0, 0.0]])  # so far off that float32 holds nothing
    features, keys = torch.randn(1, 4, 5), torch.eye(4)[None]
    keys[:, 2] = keys[:, 3]
    found, stay = merged(features, Salience(attention, keys), Merge(9.0, 2))
    assert stay.tolist() == [[True, False, False, True]]
    torch.testing.assert_close(found[0, 3], features[0, 2:].mean(0))


@pytest.mark.parametrize(("keep", "plus"), [(1.5, 0), (0.0, 0), (0.5, 1), (1.5, 3), (9.0, 0)])
def test_merging_is_as_defined(keep, plus):
    torch.manual_seed(0)
    features, keys = torch.randn(3, 24, 5), torch.randn(3, 24, 4)
    attention = torch.rand(3, 24).pow(4)
    found, stay = merged(features, Salience(attention, keys), Merge(keep, plus))
    for piece in range(3):
        wanted = by_definition(*(part[piece].double().numpy() for part in (
            features, attention, keys)), keep, plus)  # fmt: skip
        assert set(stay[piece].nonzero().flatten().tolist()) == set(wanted)
        for token, feature in wanted.items():
            np.testing.assert_allclose(found[piece, token], feature, atol=1e-5)
    if keep == 9:
        assert stay.sum() == 3  # one at least


@pytest.fixture(scope="module", params=["llava", "vipllava", "llava_next"])
def model(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("merging")
    folder = tiny_families.make(request.param, place / "model", blocks=BLOCKS, heads=4, kv_heads=2)
    return loading.load(checkpoint.find(str(folder)), "cpu", "float32")


@contextmanager
def on(model, route):
    """A route on a model, and off again."""
    model.reroute("test", route)
    yield
    model.reroute("test", plain(BLOCKS))


@pytest.fixture
def batch(model, tmp_path):
    assert model.sight is not None
    model.sight.notes_salience = True
    pairs = []
    for number in range(3):
        tiny.picture(number).save(tmp_path / f"{number}.png")
        turns = (Turn("What?" * (number + 1), "red"), Turn("And?", "green and blue"))
        pairs.append(Pair(str(number), tmp_path / f"{number}.png", turns))
    return conversation.pair_batches(model, conversation.load(model.checkpoint), pairs, 4000)[0]


def test_sequences_are_shorter_and_positions_kept(model, batch):
    """Against the plain decoder on rows from which merged tokens are cut out by hand."""
    dense = model.hidden(model.given(batch))
    counted = []
    hook = model.decoder.layers[0].self_attn.q_proj.register_forward_pre_hook(
        lambda _, args: counted.append(args[0].shape[1])
    )
    with on(model, Route(plain(BLOCKS).steps, Merge(0.0))):
        given = model.given(batch)
        found = model.hidden(given)
    hook.remove()
    embeds = given["inputs_embeds"]
    gone = (embeds == 0).all(-1) & (model.kinds(batch) == PICTURE)
    assert gone.any(1).all()
    kept = ~gone & (batch.classes != PADDING)
    assert counted == [int(kept.sum(1).max())]
    for row in range(len(embeds)):
        wanted = model.decoder(
            inputs_embeds=embeds[row : row + 1, kept[row]],
            position_ids=kept[row].nonzero().T,
            attention_mask=torch.ones(1, int(kept[row].sum()), dtype=torch.long),
            use_cache=False,
        ).last_hidden_state
        torch.testing.assert_close(found[row, kept[row]], wanted[0], atol=2e-5, rtol=1e-4)
    answers = batch.classes == TEXT
    assert not torch.allclose(found[answers], dense[answers], atol=1e-3)
    assert torch.equal(model.hidden(model.given(batch)), dense)


def test_a_token_that_the_projector_makes_nothing_of_is_still_there(model, batch):
    """Zeros stand for what was merged away, and for nothing else."""
    with on(model, Route(plain(BLOCKS).steps, Merge(0.0))):
        kept = (model.given(batch)["inputs_embeds"] != 0).any(-1)
        before = model.weights(model.projector_parameters)
        model.set_weights({name: torch.zeros_like(weight) for name, weight in before.items()})
        silent = (model.given(batch)["inputs_embeds"] != 0).any(-1)
        model.set_weights(before)
    assert torch.equal(silent, kept)


def test_it_goes_with_cuts(model, batch):
    """What is merged away is as padding is to whatever else a route says."""
    steps = (Step(), Step(window=0), Step(skip_block=PICTURES))
    with on(model, Route(steps, Merge(0.0))):
        given = model.given(batch)
        found = model.hidden(given)
    gone = (given["inputs_embeds"] == 0).all(-1) & (model.kinds(batch) == PICTURE)
    with on(model, Route(steps)):
        kinds = model.kinds(batch).masked_fill(gone, PADDING)
        wanted = model.hidden({**given, "passage": Passage(kinds)})
    answers = batch.classes == TEXT
    torch.testing.assert_close(found[answers], wanted[answers])


def test_what_is_looked_at_again_is_what_is_seen(model, batch, tmp_path):
    """Features kept before the projector are merged as pixels are."""
    speech = conversation.load(model.checkpoint)
    tiny.picture(0).save(tmp_path / "x.png")
    shown = speech.show(Pair("x", tmp_path / "x.png", ()).open())
    ids = conversation.question_ids(speech, [Turn("What?", None)], shown)
    caught = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, __, called: caught.append(called["inputs_embeds"]), with_kwargs=True
    )
    with on(model, Route(plain(BLOCKS).steps, Merge(0.3, 1))):
        session = Resident(model)
        greedy(session, [Prompt(ids, shown=shown.inputs)], frozenset(), 1)
        caught = caught[:1]
        given = model.given(batch)["inputs_embeds"]
    hook.remove()
    places = batch.ids == model.picture_token
    row = batch.origins.index("0")
    seen = caught[0][0, torch.tensor(ids) == model.picture_token]
    torch.testing.assert_close(given[row, places[row]], seen, atol=1e-5, rtol=1e-4)
    gone = int((seen == 0).all(-1).sum())
    assert gone
    assert session._cache.layers[0].keys.shape[2] == len(ids) - gone


def test_plain_pictures_are_merged_in_engines_too(tmp_path):
    """`see` gives zeros for what is merged away, and `step` leaves those out."""
    vlm = loading.load(checkpoint.find(str(tiny.llava(tmp_path / "llava"))), "cpu", "float32")
    pixels = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    vlm.reroute("test", Route((Step(),) * 2, Merge(0.0)))
    session = Resident(vlm)
    features = session.see(pixels)
    gone = (features == 0).all(-1)[0]
    assert 0 < gone.sum() < len(gone)
    ids = [1, 4, 4, 4, 4, 30, 31]
    greedy(session, [Prompt(ids, features[0], tiny.IMAGE)], frozenset(), 1)
    assert session._cache.layers[0].keys.shape[2] == len(ids) - gone.sum()


def test_a_tower_without_a_class_token_is_refused(tmp_path):
    family = plugins.find("families", "merge_tokens")()
    for name in ("paligemma", "qwen2_vl", "internvl"):
        folder = tiny_families.make(name, tmp_path / name)
        body = loading.load(checkpoint.find(str(folder)), "cpu", "float32").body
        with pytest.raises(PolicyError, match="this model's tower has none"):
            family.genes({"keep": 1.5}, body, 0.5)
    with pytest.raises(PolicyError, match="no option 'kept'"):
        family.choices("kept", 1, 0.5)
    with pytest.raises(PolicyError, match="-1 is no number"):
        family.choices("keep", -1, 0.5)


def test_a_search_and_what_it_writes_merge(small, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[merge_tokens]\nkeep = "0,1"\nplus = "0,1"\n[layer_cut]\nlast = "0,1"\n')
    found = runs.search(replace(small, policy=str(file), out=str(tmp_path / "run")))
    assert set(found.policy.tables["merge_tokens"]) == {"keep", "plus"}
    fixed = tmp_path / "best.toml"
    fixed.write_text("[merge_tokens]\nkeep = 0.5\nplus = 1\n")
    pruning.prune(replace(small, policy=str(fixed)), tmp_path / "out", Watch())
    again = loading.load(checkpoint.find(str(tmp_path / "out")), "cpu", "float32")
    assert again.route.merge == Merge(0.5, 1)
    told = json.loads((tmp_path / "out" / "slimsearch.json").read_text())
    assert told["route"]["merge"] == {"keep": 0.5, "plus": 1}
