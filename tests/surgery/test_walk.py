"""The walk's Hessians, against plain forward passes of the transformers model."""

from dataclasses import replace

import pytest
import tiny
import torch

from slimsearch.calibration import Pair, Turn
from slimsearch.model.batch import Batch, batches_of
from slimsearch.model.conversation import pair_batches, text_batches
from slimsearch.routes.kinds import PADDING, PROMPT, TEXT
from slimsearch.surgery.walk import walk

TURNS = (Turn("What colour is it?", "red"), Turn("And around that?", "blue and more"))


def mixed(model, speech, most: int = 10_000) -> list[Batch]:
    ids = torch.randint(5, tiny.VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(0))
    pairs = [Pair(str(n), tiny.picture(n), TURNS[: 1 + n % 2]) for n in range(3)]
    return [*text_batches(ids, model.device, most), *pair_batches(model, speech, pairs, most)]


def plainly(model, batches, kinds) -> dict[str, torch.Tensor]:
    """X X^T in float64 of every matrix's inputs, from hooks on whole forward passes."""
    found = {m.name: torch.zeros(m.columns, m.columns, dtype=torch.float64)
             for m in model.matrices}  # fmt: skip
    for batch in batches:
        counts = torch.zeros_like(batch.classes, dtype=torch.bool)
        for kind in kinds:
            counts |= batch.classes == kind

        def note(_, given, name=None, counts=counts):
            rows = given[0][counts].double()
            found[name] += rows.T @ rows

        hooks = [
            model.linear(m.name).register_forward_pre_hook(
                lambda module, given, name=m.name, note=note: note(module, given, name)
            )
            for m in model.matrices
        ]
        with torch.no_grad():
            model.decoder(**model.given(batch))
        for hook in hooks:
            hook.remove()
    return found


def walked(model, batches, tokens: str, **options) -> dict[str, torch.Tensor]:
    options = {"pruned_inputs": False} | options
    return {
        matrix: stop.hessian.matrix
        for stop in walk(model, batches, tokens, **options)
        for matrix in stop.matrices
    }


def close(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.allclose(one.double(), two.double(), rtol=1e-4, atol=1e-4 * float(two.abs().max()))


@pytest.mark.parametrize(
    ("tokens", "kinds"),
    [("text", (TEXT,)), ("prompt", (PROMPT,)), ("both", (TEXT, PROMPT))],
)
@pytest.mark.parametrize("options", [{}, {"pruned_inputs": True}, {"true_sequential": True}])
def test_hessians_are_those_of_plain_forward_passes(seen, tokens, kinds, options):
    batches = mixed(*seen)
    found, wanted = walked(seen[0], batches, tokens, **options), plainly(seen[0], batches, kinds)
    assert list(found) == list(wanted)
    assert all(close(found[name], wanted[name]) for name in wanted)


def test_the_kinds_of_tokens_differ_and_add_up(seen):
    batches = mixed(*seen)
    text, prompt, both = (walked(seen[0], batches, kind) for kind in ("text", "prompt", "both"))
    for name, whole in both.items():
        assert close(text[name] + prompt[name], whole)
        assert not close(text[name], whole)


def test_tokens_are_counted_without_padding(seen):
    batches = mixed(*seen)
    assert any(bool((batch.classes == PADDING).any()) for batch in batches)
    for stop in walk(seen[0], batches, "both", pruned_inputs=False):
        assert stop.hessian.tokens == sum(batch.tokens for batch in batches)


def test_batching_and_padding_change_nothing(seen):
    model, speech = seen
    one_by_one = mixed(model, speech, 1)
    assert len(one_by_one) == 6
    assert not any(bool((batch.classes == PADDING).any()) for batch in one_by_one)
    (pairs_together,) = batches_of(one_by_one[3:], 10_000, 0)
    padded = Batch(
        *(torch.nn.functional.pad(getattr(pairs_together, name), (0, 9), value=value)
          for name, value in (("ids", 77), ("targets", -100), ("classes", 0), ("turns", -1))),
        pairs_together.looks,
    )  # fmt: skip
    wanted = walked(model, one_by_one, "both")
    for batches in ([*one_by_one[:3], pairs_together], [*one_by_one[:3], padded],
                    list(reversed(one_by_one))):  # fmt: skip
        found = walked(model, batches, "both")
        assert all(close(found[name], wanted[name]) for name in wanted)


def test_pruned_inputs_are_what_pruned_blocks_give(seen):
    """Block 0's output projection goes: block 1 must see that, or must not."""
    model, batches = seen[0], mixed(*seen)
    dense = plainly(model, batches, (TEXT, PROMPT))

    def crippled(pruned_inputs: bool) -> dict[str, torch.Tensor]:
        found, weight = {}, model.linear("blocks.0.down").weight.data
        before = weight.clone()
        for stop in walk(model, batches, "both", pruned_inputs=pruned_inputs):
            found |= dict.fromkeys(stop.matrices, stop.hessian.matrix)
            if "blocks.0.down" in stop.matrices:
                weight.zero_()
        crippled_plainly = plainly(model, batches, (TEXT, PROMPT))
        weight.copy_(before)
        return found, crippled_plainly

    found, wanted = crippled(True)
    assert all(close(found[name], dense[name]) for name in dense if "blocks.0" in name)
    assert all(close(found[name], wanted[name]) for name in dense if "blocks.1" in name)
    assert not close(wanted["blocks.1.q"], dense["blocks.1.q"])
    found, _ = crippled(False)
    assert all(close(found[name], dense[name]) for name in dense)


def test_true_sequential_sees_each_stage_pruned(seen):
    model, batches = seen[0], mixed(*seen)
    weight = model.linear("blocks.0.v").weight.data
    before, found = weight.clone(), {}
    for stop in walk(model, batches, "both", pruned_inputs=True, true_sequential=True):
        found |= dict.fromkeys(stop.matrices, stop.hessian.matrix)
        if "blocks.0.v" in stop.matrices:
            weight.mul_(0.25)
    wanted = plainly(model, batches, (TEXT, PROMPT))
    weight.copy_(before)
    dense = plainly(model, batches, (TEXT, PROMPT))
    assert close(found["blocks.0.o"], wanted["blocks.0.o"])
    assert not close(found["blocks.0.o"], dense["blocks.0.o"])


def test_stops_come_in_the_order_of_computation(seen):
    stops = [stop.matrices for stop in walk(seen[0], mixed(*seen), "both", pruned_inputs=False)]
    assert stops[:4] == [
        ("blocks.0.q", "blocks.0.k", "blocks.0.v"), ("blocks.0.o",),
        ("blocks.0.gate", "blocks.0.up"), ("blocks.0.down",),
    ]  # fmt: skip
    assert len(stops) == 8


def test_a_walk_leaves_no_hooks_and_no_changes(seen):
    model, batches = seen[0], mixed(*seen)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    model.loss(batches[0])  # transformers hangs up hooks of its own on the first pass
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.model.modules()]
    list(walk(model, batches, "both", pruned_inputs=True))
    assert hooks == [
        len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.model.modules()
    ]
    assert all(torch.equal(w, before[key]) for key, w in model.model.state_dict().items())


def test_parts_are_the_diagonals_of_each_set_alone(seen):
    model, speech = seen
    more = [replace(batch, source="more") for batch in mixed(model, speech)[-1:]]
    batches = [*mixed(model, speech, 40), *more]
    stops = list(walk(model, batches, "both", pruned_inputs=False, by_set=True))
    sets = {
        "text": ("text", TEXT), "pairs": ("pairs", TEXT), "pairs, prompts": ("pairs", PROMPT),
        "more": ("more", TEXT), "more, prompts": ("more", PROMPT),
    }  # fmt: skip
    wanted = {
        name: plainly(model, [b for b in batches if b.source == source], [kind])
        for name, (source, kind) in sets.items()
    }
    for stop in stops:
        assert set(stop.hessian.parts) == set(sets)
        for name, part in stop.hessian.parts.items():
            assert close(part, wanted[name][stop.matrices[0]].diagonal())
        assert close(sum(stop.hessian.parts.values()), stop.hessian.matrix.diagonal())


def test_parts_are_measured_only_where_asked_for(seen):
    stops = list(walk(seen[0], mixed(*seen), "both", pruned_inputs=False))
    assert not any(stop.hessian.parts for stop in stops)


def test_a_set_without_tokens_that_count_is_no_part(seen):
    stops = list(walk(seen[0], mixed(*seen), "prompt", pruned_inputs=False, by_set=True))
    assert all(set(stop.hessian.parts) == {"pairs, prompts"} for stop in stops)
