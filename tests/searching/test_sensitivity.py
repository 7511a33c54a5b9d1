"""Losses and squared gradients at every matrix's output, against autograd, a matrix at a time."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from slimsearch.model import conversation
from slimsearch.model.batch import IGNORED
from slimsearch.searching import sensitivity


@pytest.fixture
def measured(seen):
    model = seen[0]
    ids = torch.arange(5, 85).view(4, 20)
    texts = tuple(conversation.text_batches(ids, model.device, 40))
    return model, texts, sensitivity.slope(model, texts)


def keeper(kept: list):
    return lambda _, __, out: kept.append(out)


def test_it_is_the_mean_squared_gradient_of_the_loss(measured):
    model, texts, found = measured
    for name in ("blocks.0.q", "blocks.1.down"):
        kept: list[torch.Tensor] = []
        hook = model.linear(name).register_forward_hook(keeper(kept))
        total, count = 0.0, 0
        for batch in texts:
            kept.clear()
            with torch.enable_grad():
                embeds = model.given(batch)["inputs_embeds"].detach().requires_grad_()
                hidden = model.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
                logits = model.model.get_output_embeddings()(hidden).float()
                loss = cross_entropy(
                    logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED,
                    reduction="sum",
                )  # fmt: skip
                (gradient,) = torch.autograd.grad(loss, kept[0])
            total += float(gradient.square().sum())
            count += int((batch.targets != IGNORED).sum())
        hook.remove()
        expected = total / count / model.linear(name).out_features
        assert found.squares[name] == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_the_mean_of_a_token(measured):
    model, texts, found = measured
    assert found.loss == pytest.approx(model.mean_loss(texts), rel=1e-5)


def test_of_nothing_nothing_is_known(measured):
    model, _, _ = measured
    found = sensitivity.slope(model, ())
    assert found.loss == 0
    assert found.squares == dict.fromkeys((m.name for m in model.matrices), 0.0)


def test_input_norms_are_those_of_the_tokens_seen(measured):
    model, texts, _ = measured
    found = sensitivity.inputs(model, texts)
    inputs = []
    hook = model.linear("blocks.1.gate").register_forward_pre_hook(
        lambda _, args: inputs.append(args[0].flatten(0, 1))
    )
    for batch in texts:
        with torch.no_grad():
            model.decoder(**model.given(batch))
    hook.remove()
    expected = torch.cat(inputs).norm(dim=0)
    assert torch.allclose(found["blocks.1.gate"], expected, rtol=1e-4)
    assert torch.equal(found["blocks.1.gate"], found["blocks.1.up"])


def test_the_model_is_left_as_it_was(measured):
    model, _, _ = measured
    for matrix in model.matrices:
        linear = model.linear(matrix.name)
        assert not linear._backward_hooks
        assert not linear._forward_pre_hooks
        assert linear.weight.grad is None
