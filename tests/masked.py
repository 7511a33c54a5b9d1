"""The plain way to run a route: every token in every block, under full n x n masks, then discarded.

It knows nothing of how slimsearch does it. A block's submodules are the model's own, its attention
is transformers' eager one, and nothing is cached: what is generated is read again as a whole.
"""

import torch

from slimsearch.routes.kinds import PADDING, PICTURE
from slimsearch.routes.route import Step


def hidden(vlm, batch, route):
    """What the decoder's last norm gives at every place, [rows, length, width]."""
    kinds = torch.where(
        (batch.ids == vlm.picture_token) & (batch.classes == 1), PICTURE, batch.classes
    ) if vlm.sees else batch.classes  # fmt: skip
    first, calls, behind, finish = _dense(vlm, batch)
    x, aside = first, None
    for index, (block, called) in enumerate(zip(vlm.decoder.layers, calls, strict=True)):
        step = route.steps[index]
        made = _block(block, step, kinds, x, called)
        if aside is not None:
            how, other = aside
            made = (made + x + other) / 2 if how == "mean" else made + other
            aside = None
        if step.parallel_next:
            aside = step.parallel_next, made - x
        else:
            x = made
        x = x + behind[index]
    return finish(x)


def logits(vlm, batch, route):
    return vlm.logits(hidden(vlm, batch, route))


def _among(kinds, some):
    return torch.stack([kinds == kind for kind in (*some, PADDING)]).any(0)


def _block(block, step: Step, kinds, x, called):
    named = dict(block.named_children())
    gone = _among(kinds, step.skip_block | step.skip_attention)
    mask = called["attention_mask"].clone()  # 0, or about minus infinity
    lowest = torch.finfo(mask.dtype).min
    n = x.shape[1]
    pictured = kinds == PICTURE
    if step.window is not None:
        rank = pictured.cumsum(1)
        back = rank[:, :, None] - rank[:, None, :]
        near = pictured[:, None, :] & (back >= 0) & (back <= step.window)
        if step.window == 0:  # its own value, whoever it sees by the model
            near = torch.eye(n, dtype=torch.bool).expand(len(x), n, n)
        mask = torch.where((pictured[:, :, None] & ~near)[:, None], lowest, mask)
    mask = torch.where(gone[:, None, None, :], lowest, mask)
    mask = torch.where(gone[:, None, :, None], 0.0, mask)  # discarded, but a number
    norms = [name for name in named if "norm" in name]
    opt = "fc1" in named
    before = named["self_attn_layer_norm" if opt else "input_layernorm"]
    sandwich = "pre_feedforward_layernorm" in norms
    given = {k: v for k, v in called.items() if k in ("position_embeddings", "position_ids")}
    attended = named["self_attn"](
        hidden_states=before(x), attention_mask=mask, past_key_values=None, **given
    )[0]
    if sandwich:
        attended = named["post_attention_layernorm"](attended)
    attended = torch.where(gone[..., None], 0.0, attended)
    after = x + attended
    read = x if step.parallel_ffn else after
    if opt:
        made = named["fc2"](block.activation_fn(named["fc1"](named["final_layer_norm"](read))))
    elif sandwich:
        made = named["mlp"](named["pre_feedforward_layernorm"](read))
        made = named["post_feedforward_layernorm"](made)
    else:
        made = named["mlp"](named["post_attention_layernorm"](read))
    made = torch.where(_among(kinds, step.skip_block | step.skip_ffn)[..., None], 0.0, made)
    return torch.where(_among(kinds, step.skip_block)[..., None], x, after + made)


def _dense(vlm, batch):
    """What the first block is given, how each is called, what the model itself adds behind each
    (DeepStack does), and what is done at the end."""
    assert not vlm.detours.on
    calls, entered, left = [], [], []
    config = vlm.decoder.config
    was, config._attn_implementation = config._attn_implementation, "eager"

    def note(_, args, called):
        entered.append(args[0] if args else called["hidden_states"])
        calls.append(called)

    hooks = [
        block.register_forward_pre_hook(note, with_kwargs=True) for block in vlm.decoder.layers
    ]
    hooks += [
        block.register_forward_hook(lambda *told: left.append(told[-1]))
        for block in vlm.decoder.layers
    ]
    given = vlm.given(batch)
    length = batch.ids.shape[1]
    if not isinstance(given.get("attention_mask"), dict) and given.get("attention_mask") is None:
        causal = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
        fallback = causal.expand(len(batch.ids), 1, length, length)
    vlm.hidden(given)
    for hook in hooks:
        hook.remove()
    for called in calls:
        if called["attention_mask"] is None:
            called["attention_mask"] = fallback
        elif called["attention_mask"].dtype == torch.bool:
            zero = torch.zeros((), dtype=torch.float32)
            lowest = torch.finfo(torch.float32).min
            called["attention_mask"] = torch.where(called["attention_mask"], zero, lowest)

    def finish(x):
        # Runs the decoder with blocks that give back x at the end: whatever follows them.
        last = vlm.decoder.layers[-1]
        hook = last.register_forward_hook(lambda *_: x)
        config._attn_implementation = "eager"
        try:
            return vlm.hidden(vlm.given(batch))
        finally:
            hook.remove()
            config._attn_implementation = was

    config._attn_implementation = was
    behind = [after - before for after, before in zip(entered[1:], left[:-1], strict=True)]
    return entered[0], calls, [*behind, 0.0], finish
