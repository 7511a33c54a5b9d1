"""Routes against the plain way to run them (tests/masked.py): full masks, everything computed."""

import random

import masked
import numpy as np
import pytest
import tiny
import tiny_families
import torch
from torch.nn import functional

from slimsearch.calibration import Pair, Turn
from slimsearch.model import checkpoint, conversation, loading
from slimsearch.model.batch import Batch
from slimsearch.model.resident import Resident
from slimsearch.model.vlm import VLM
from slimsearch.routes import attention
from slimsearch.routes.kinds import PADDING, PICTURE, PROMPT, TEXT
from slimsearch.routes.route import EVERY, NONE, PICTURES, TOKENS, Route, Step, plain

BLOCKS = 4
ANSWERS = TOKENS["T"]
SHAPES = {"qwen2_vl": {}, "qwen2_5_vl": {}}  # heads follow from the width
SEEING = ["llava", "llava_next", "gemma3", "paligemma", "qwen2_vl", "qwen3_vl", "idefics3"]
READING = ["llama", "mistral", "gemma2", "opt", "phi3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place, known = tmp_path_factory.mktemp("routes"), {}

    def make(family: str) -> tuple[VLM, Batch]:
        if family not in known:
            shape = SHAPES.get(family, {"heads": 4, "kv_heads": 2})
            folder = tiny_families.make(family, place / family, blocks=BLOCKS, **shape)
            vlm = loading.load(checkpoint.find(str(folder)), "cpu", "float32")
            known[family] = vlm, seen(vlm, place) if vlm.sees else read()
        return known[family]

    return make


def seen(vlm: VLM, place) -> Batch:
    """Three conversations about pictures, of different lengths, of two turns each."""
    pairs = []
    for number in range(3):
        file = place / f"{number}.png"
        tiny.picture(number).save(file)
        turns = [
            Turn("What is it? " * (1 + (number + k) % 2), "red and green " * (1 + (number + k) % 3))
            for k in range(2)
        ]
        pairs.append(Pair(str(number), file, tuple(turns)))
    return conversation.pair_batches(vlm, conversation.load(vlm.checkpoint), pairs, 4000)[0]


def read() -> Batch:
    """Three texts, each a prompt and what follows; one is shorter."""
    torch.manual_seed(0)
    ids = torch.randint(10, 200, (3, 20))
    classes = torch.randint(PROMPT, TEXT + 1, (3, 20)).sort(1).values.to(torch.uint8)
    classes[:, 0], classes[1, -4:] = PROMPT, PADDING
    return Batch(ids, ids, classes, ids)


def routes(count: int, seed: int = 0) -> list[Route]:
    """Every kind of step by itself, then several at once in each block, drawn at random."""
    alone = [
        Step(window=0), Step(window=2), Step(parallel_ffn=True), Step(skip_block=PICTURES),
        Step(skip_ffn=ANSWERS), Step(skip_attention=ANSWERS), Step(skip_attention=EVERY),
    ]  # fmt: skip
    found = [Route((step, Step(), step, Step())) for step in alone]
    found.append(Route((Step(parallel_next="mean"), Step(), Step(parallel_next="sum"), Step())))
    draw = random.Random(seed)

    def kinds():
        return draw.choice([NONE, NONE, ANSWERS, EVERY, PICTURES])

    def step():
        window = draw.choice([None, 0, 0, 2, 5])
        return Step(kinds(), kinds(), kinds(), draw.random() < 0.3, "", window)

    for _ in range(count):
        steps = [step() for _ in range(BLOCKS)]
        pair = draw.randrange(BLOCKS - 1)
        steps[pair] |= Step(parallel_next=draw.choice(["", "mean", "sum"]))
        found.append(Route(tuple(steps)))
    return found


class on:
    """A route on a model, and off again."""

    def __init__(self, vlm: VLM, route: Route):
        self._vlm, self._route = vlm, route

    def __enter__(self):
        self._vlm.reroute("test", self._route)

    def __exit__(self, *_):
        self._vlm.reroute("test", plain(BLOCKS))


@pytest.mark.parametrize("family", [*SEEING, *READING])
def test_hidden_states_are_those_of_full_masks(made, family):
    vlm, batch = made(family)
    real = batch.classes != PADDING
    before = vlm.hidden(vlm.given(batch))
    moved = 0
    for route in routes(6):
        wanted = masked.hidden(vlm, batch, route)
        with on(vlm, route):
            found = vlm.hidden(vlm.given(batch))
        torch.testing.assert_close(found[real], wanted[real], atol=2e-5, rtol=1e-4)
        moved += not torch.allclose(wanted[real], before[real], atol=1e-3)
    assert moved > 5  # the routes do something
    assert torch.equal(vlm.hidden(vlm.given(batch)), before)  # bit for bit


@pytest.mark.parametrize("family", ["llava", "llava_next", "idefics3", "llama", "gemma2", "opt"])
def test_token_by_token_is_as_all_at_once(made, family):
    """Rows side by side, padded on the left; answers token by token, later questions at once."""
    vlm, batch = made(family)
    for route in routes(4, seed=1):
        wanted = masked.logits(vlm, batch, route)
        embeds = vlm.given(batch)["inputs_embeds"].numpy()
        kinds = vlm.kinds(batch).numpy()
        with on(vlm, route):
            for row, place, logits in spoken(Resident(vlm), embeds, kinds):
                np.testing.assert_allclose(logits, wanted[row, place].numpy(), atol=1e-3)


def spoken(session, embeds, kinds):
    """Feeds conversations to a session; yields (row, place, logits after the token there)."""
    rows, ends = len(kinds), (kinds != PADDING).sum(1)
    mask, at = np.zeros((rows, 0), np.int64), np.zeros(rows, np.int64)
    while (at < ends).any():
        stops = [stop(kinds[row], at[row], ends[row]) for row in range(rows)]
        width = max(stops - at)
        shown = np.zeros((rows, width, embeds.shape[-1]), np.float32)
        real, told = np.zeros((rows, width), np.int64), np.zeros((rows, width), np.uint8)
        for row, end in enumerate(stops):
            if count := end - at[row]:
                shown[row, -count:] = embeds[row, at[row] : end]
                real[row, -count:], told[row, -count:] = 1, kinds[row, at[row] : end]
        mask = np.concatenate([mask, real], 1)
        session.tell(told)
        logits = session.step(shown, mask, np.maximum(mask.cumsum(1) - 1, 0)[:, -width:])
        yield from ((row, stops[row] - 1, logits[row]) for row in range(rows) if real[row].any())
        at = np.array(stops)


def stop(kinds, at, end) -> int:
    """Where a step ends that begins at a token: behind one of an answer, or at the next answer."""
    if at < end and kinds[at] == TEXT:
        return at + 1
    while at < end and kinds[at] != TEXT:
        at += 1
    return at


def test_what_is_skipped_is_neither_computed_nor_cached(made):
    vlm, _ = made("llava")
    route = Route((
        Step(skip_block=ANSWERS), Step(skip_ffn=EVERY), Step(skip_attention=EVERY),
        Step(skip_block=PICTURES),
    ))  # fmt: skip
    blocks = vlm.decoder.layers
    counted: dict[str, list[int]] = {}
    hooks = []
    for index, block in enumerate(blocks):
        for name in ("self_attn.q_proj", "mlp.up_proj"):

            def count(_, args, key=f"{index}.{name}"):
                counted.setdefault(key, []).append(args[0].shape[1])

            hooks.append(block.get_submodule(name).register_forward_pre_hook(count))
    session = Resident(vlm)
    prompt, answer = 20, 3
    pictures = slice(5, 5 + tiny.VISUAL_TOKENS)
    kinds = np.full((1, prompt), PROMPT, np.uint8)
    kinds[:, pictures] = PICTURE
    draw = np.random.default_rng(0)
    width = vlm.decoder.config.hidden_size
    with on(vlm, route):
        session.tell(kinds)
        session.step(draw.normal(size=(1, prompt, width)).astype(np.float32),
                     np.ones((1, prompt), np.int64), np.arange(prompt)[None])  # fmt: skip
        for n in range(answer):
            session.tell(np.full((1, 1), TEXT, np.uint8))
            session.step(draw.normal(size=(1, 1, width)).astype(np.float32),
                         np.ones((1, prompt + n + 1), np.int64),
                         np.array([[prompt + n]]))  # fmt: skip
    for hook in hooks:
        hook.remove()
    text = prompt - tiny.VISUAL_TOKENS
    assert counted == {
        "0.self_attn.q_proj": [prompt], "0.mlp.up_proj": [prompt],
        "1.self_attn.q_proj": [prompt, 1, 1, 1], "2.mlp.up_proj": [prompt, 1, 1, 1],
        "3.self_attn.q_proj": [text, 1, 1, 1], "3.mlp.up_proj": [text, 1, 1, 1],
    }  # fmt: skip
    assert [session._cache.layers[n].keys is None or session._cache.layers[n].keys.shape[2]
            for n in (0, 1, 3)] == [prompt, prompt + answer, text + answer]  # fmt: skip
    assert not session._cache.layers[2].is_initialized


def test_a_cut_block_computes_no_scores_among_pictures(made, monkeypatch):
    """Text against everything, and nothing that grows with the square of pictures."""
    vlm, _ = made("llava")
    text, real, scores = 6, functional.scaled_dot_product_attention, []

    def noted(query, key, *args, **kwargs):
        mask = kwargs.get("attn_mask")
        scores.append(query.shape[2] * key.shape[2])
        assert mask is None or mask.shape[2:] == (query.shape[2], key.shape[2])
        return real(query, key, *args, **kwargs)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)

    def counted(pictures: int, route: Route) -> int:
        kinds = torch.full((1, pictures + text), PROMPT, dtype=torch.uint8)
        kinds[:, :pictures] = PICTURE
        embeds = torch.randn(1, pictures + text, vlm.decoder.config.hidden_size)
        scores.clear()
        with on(vlm, route), torch.no_grad():
            vlm.detours.tell(kinds)
            vlm.decoder(inputs_embeds=embeds, use_cache=False)
        return sum(scores)

    cut = Route((Step(window=0),) * BLOCKS)
    for pictures in (32, 64, 128):
        assert counted(pictures, cut) == BLOCKS * text * (pictures + text)
        assert counted(pictures, plain(BLOCKS)) == BLOCKS * (pictures + text) ** 2
    near = Route((Step(window=4),) * BLOCKS)
    for pictures in (64, 128):
        most = text * (pictures + text) + pictures * (attention.STRETCH + 4)
        assert counted(pictures, near) <= BLOCKS * most < BLOCKS * (pictures + text) ** 2
    assert counted(4096, near) / counted(2048, near) < 2.1


def test_a_mask_that_was_made_already_is_heeded(made):
    """PaliGemma reads texts without a picture under a mask of ours."""
    vlm, _ = made("paligemma")
    texts = read()
    real = texts.classes != PADDING
    for route in routes(2, seed=2):
        wanted = masked.hidden(vlm, texts, route)
        with on(vlm, route):
            found = vlm.hidden(vlm.given(texts))
        torch.testing.assert_close(found[real], wanted[real], atol=2e-5, rtol=1e-4)


def test_gradients_go_the_same_way(made, monkeypatch):
    vlm, batch = made("llava")
    route = routes(3)[-1]
    given = vlm.given(batch)
    ours = given["inputs_embeds"].detach().requires_grad_()
    wanted = ours.detach().clone().requires_grad_()
    spoken_of = batch.classes == TEXT
    with on(vlm, route):
        hidden = vlm.hidden({**vlm.given(batch), "inputs_embeds": ours})
    hidden[spoken_of].square().sum().backward()
    monkeypatch.setattr(vlm, "given", lambda _: {**given, "inputs_embeds": wanted})
    masked.hidden(vlm, batch, route)[spoken_of].square().sum().backward()
    torch.testing.assert_close(ours.grad, wanted.grad, atol=1e-3, rtol=1e-3)


def test_routes_of_several_are_one(made):
    vlm, _ = made("llava")
    one = Route((Step(window=0), *plain(BLOCKS - 1).steps))
    other = Route((Step(skip_block=ANSWERS), *plain(BLOCKS - 1).steps))
    vlm.reroute("one", one)
    vlm.reroute("other", other)
    assert vlm.route == one | other
    vlm.reroute("one", plain(BLOCKS))
    assert vlm.route == other
    vlm.reroute("other", plain(BLOCKS))
    assert not vlm.detours.on
