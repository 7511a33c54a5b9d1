"""A LLaVA by hand: tensors as they lie on disk, the decoder as the papers have it, full masks.

It knows nothing of how slimsearch does it, and reads policies from their tables itself. Nothing is
cached and nothing left out: every token goes through everything, and what a policy takes away is
masked or taken back. Of transformers' code it has the vision tower and the projector.
"""

import json
from collections import defaultdict
from fnmatch import fnmatchcase
from itertools import accumulate

import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForImageTextToText

PICTURE, PROMPT, TEXT = "V", "P", "T"
EVERY = {PICTURE, PROMPT, TEXT}


class PlainLlava:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())["text_config"]
        self.weights = {
            name.removeprefix("model.language_model."): tensor
            for name, tensor in load_file(folder / "model.safetensors").items()
        }
        whole = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.tower, self.projector = whole.model.vision_tower, whole.model.multi_modal_projector

    @torch.no_grad()
    def picture(self, pixels, table):
        """Features of a picture's tokens, each with whether it stays under [merge_tokens]."""
        states = self.tower(pixels[None], output_hidden_states=True).hidden_states
        seen = states[-2][0, 1:]
        stay = torch.ones(len(seen), dtype=torch.bool)
        if table is not None:
            block = self.tower.encoder.layers[-2]
            normed = block.layer_norm1(states[-3])[0]
            q, k = (getattr(block.self_attn, f"{one}_proj")(normed) for one in "qk")
            heads = block.self_attn.num_heads
            parts = zip(q[0].chunk(heads), k.chunk(heads, 1), strict=True)
            each = [(one @ all_.T / len(one) ** 0.5).softmax(-1)[1:] for one, all_ in parts]
            seen, stay = merged(seen, sum(each) / heads, k[1:], table)
        return list(zip(self.projector(seen[None])[0], stay.tolist(), strict=True))

    def logits(self, ids, kinds, pictures, tables):
        """Behind every token; `pictures` fill the places of that kind in order."""
        x = self.weights["embed_tokens.weight"][ids].clone()
        there = [True] * len(ids)
        places = [place for place, kind in enumerate(kinds) if kind == PICTURE]
        for place, (feature, stays) in zip(places, pictures, strict=True):
            x[place], there[place] = feature, stays
        aside = None
        for index, step in enumerate(steps_of(tables, self.config["num_hidden_layers"])):
            made = self.block(f"layers.{index}", step, kinds, there, x)
            if aside is not None:
                how, first = aside
                made = (first + made) / 2 if how == "mean" else first + made - x
            aside = (step["beside"], made) if "beside" in step else None
            x = x if aside else made
        head = self.weights.get("lm_head.weight", self.weights["embed_tokens.weight"])
        return self.norm(x, "norm") @ head.T

    def block(self, name, step, kinds, there, x):
        """What the block makes of all tokens; those that it skips come out as they were."""
        passing = [kind in step["skip_block"] for kind in kinds]
        unheard = [kind in step["skip_attention"] | step["skip_block"] for kind in kinds]
        unfed = [kind in step["skip_ffn"] | step["skip_block"] for kind in kinds]
        normed = self.norm(x, f"{name}.input_layernorm")
        a = self.attention(f"{name}.self_attn", step, kinds, there, unheard, normed)
        a[torch.tensor(unheard)] = 0
        f = self.norm(x if step["parallel"] else x + a, f"{name}.post_attention_layernorm")
        gate, up, down = (
            self.weights[f"{name}.mlp.{r}_proj.weight"] for r in ("gate", "up", "down")
        )
        f = (functional.silu(f @ gate.T) * (f @ up.T)) @ down.T
        f[torch.tensor(unfed)] = 0
        made = x + a + f
        return torch.where(torch.tensor(passing)[:, None], x, made)

    def attention(self, name, step, kinds, there, unheard, x):
        heads, kv = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        q, k, v = (
            (x @ self.weights[f"{name}.{r}_proj.weight"].T).view(len(x), n, -1).transpose(0, 1)
            for r, n in (("q", heads), ("k", kv), ("v", kv))
        )
        q, k = self.turned(q), self.turned(k)
        k, v = (part.repeat_interleave(heads // kv, 0) for part in (k, v))
        sees = visible(step["window"], kinds, there, unheard)
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~sees, -torch.inf)
        found = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        return found @ self.weights[f"{name}.o_proj.weight"].T

    def norm(self, x, name):
        root = (x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]).rsqrt()
        return x * root * self.weights[f"{name}.weight"]

    def turned(self, x):
        """By where each token stands, whatever was merged away before it."""
        half = x.shape[-1] // 2
        theta = self.config["rope_parameters"]["rope_theta"]
        speeds = theta ** (-torch.arange(half) / half)
        angles = torch.outer(torch.arange(x.shape[1]).float(), speeds)
        a, b = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def visible(window, kinds, there, unheard):
    """Which token sees which, one by one."""
    sees = torch.zeros(len(kinds), len(kinds), dtype=torch.bool)
    pictured = [kind == PICTURE for kind in kinds]
    shown = [picture and here for picture, here in zip(pictured, there, strict=True)]
    before = [0, *accumulate(shown)]  # pictures' tokens that are there
    for i in range(len(kinds)):
        for j in range(i + 1):
            cut = window is not None and pictured[i]
            near = (
                i == j if window == 0 else cut and pictured[j] and before[i] - before[j] <= window
            )
            sees[i, j] = there[j] and not unheard[j] and (near or not cut)
        sees[i, i] |= not sees[i].any()  # what becomes of it does not matter, but it is a number
    return sees


def merged(features, attention, keys, table):
    """PruMerge, token by token."""
    ordered = attention.double().sort().values
    low, high = (float(torch.quantile(ordered, share)) for share in (0.25, 0.75))
    stay = [float(one) > high + table["keep"] * (high - low) for one in attention]
    stay[int(attention.argmax())] = True
    if count := min(table.get("plus", 0) * sum(stay), len(stay)):
        for place in torch.linspace(0, len(stay) - 1, count).round().long().tolist():
            stay[place] = True
    groups = {place: [place] for place, stays in enumerate(stay) if stays}
    for place in range(len(stay)):
        if not stay[place]:
            alike = {
                i: float(functional.cosine_similarity(keys[place], keys[i], 0)) for i in groups
            }
            groups[max(alike, key=alike.__getitem__)].append(place)
    found = features.clone()
    for home, members in groups.items():
        weights = attention[members].double() + 1e-30
        found[home] = (features[members] * weights[:, None] / weights.sum()).sum(0)
    return found, torch.tensor(stay)


def steps_of(tables, blocks):
    """What each block does, by the tables of a policy."""
    tables = defaultdict(dict, tables)
    steps = [
        {"parallel": False, "window": None}
        | {name: set() for name in ("skip_block", "skip_attention", "skip_ffn")}
        for _ in range(blocks)
    ]
    for name in ("skip_block", "skip_attention", "skip_ffn"):
        for index in chosen(tables[name], blocks):
            steps[index][name] |= {TEXT} if tables[name].get("tokens") == "T" else EVERY
    for index in chosen(tables["parallel_ffn_attention"], blocks):
        steps[index]["parallel"] = True
    for index in chosen(tables["attention_cut"], blocks):
        steps[index]["window"] = tables["attention_cut"].get("window", 0)
    for index in range(blocks - tables["layer_cut"].get("last", 0), blocks):
        steps[index]["skip_block"] |= {PICTURE}
    free = 0
    for index in chosen(tables["parallel_blocks"], blocks - 1, 2):
        if index >= free:
            steps[index]["beside"] = tables["parallel_blocks"].get("combine", "mean")
            free = index + 2
    return steps


def chosen(table, blocks, every=1):
    """The blocks that a rule and the lines behind it name."""
    found = set()
    if "start" in table or "interval" in table:
        found = set(range(table.get("start", 0), blocks, table.get("interval", every)))
    for line, value in table.items():
        if "." in line:
            named = {index for index in range(blocks) if fnmatchcase(f"blocks.{index}", line)}
            found = found | named if value else found - named
    return sorted(found)
