"""Prefill of a random LLaMA decoder by the number of pictures' tokens: dense, AttnCut, LayerCut.

    python benchmarks/visual_tokens.py [--width 512] [--blocks 8] [--text 40] [--rounds 5]

Every way takes its turn in every round; times are medians. `growth` is what doubling the pictures'
tokens multiplies the time by: 2 is linear, 4 quadratic. `against dense` is of the same run.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from transformers import LlamaConfig, LlamaModel

sys.path[:0] = [str(Path(__file__).parents[1])]

from slimsearch import display  # noqa: E402
from slimsearch.architectures.llama import Llama  # noqa: E402
from slimsearch.routes.detour import Detours  # noqa: E402
from slimsearch.routes.kinds import PICTURE, PROMPT  # noqa: E402
from slimsearch.routes.route import PICTURES, Route, Step, plain  # noqa: E402

COUNTS = (256, 512, 1024, 2048, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("width", 512), ("blocks", 8), ("text", 40), ("rounds", 5), ("cores", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    torch.manual_seed(0)
    model = decoder(options.width, options.blocks)
    ways = routes(options.blocks)
    detours = Detours(model, model, Llama.stages)
    seconds = {
        count: race(model, detours, ways, count, options.text, options.rounds) for count in COUNTS
    }
    rows = []
    for name in ways:
        for count in COUNTS:
            taken, before = seconds[count][name], seconds.get(count // 2, {}).get(name)
            growth = f"{taken / before:.2f}" if before else "-"
            against = f"{seconds[count]['dense'] / taken:.2f}"
            rows.append([name, str(count), f"{1000 * taken:.0f}", growth, against])
    title = f"width {options.width}, {options.blocks} blocks, {options.text} tokens of text, fp32"
    columns = ("way", "pictures' tokens", "milliseconds", "growth", "against dense")
    display.grid(title, columns, rows)


def decoder(width: int, blocks: int) -> LlamaModel:
    config = LlamaConfig(
        vocab_size=64, hidden_size=width, intermediate_size=width * 11 // 4 // 64 * 64,
        num_hidden_layers=blocks, num_attention_heads=width // 64, max_position_embeddings=8192,
    )  # fmt: skip
    return LlamaModel(config).eval().requires_grad_(False)


def routes(blocks: int) -> dict[str, Route]:
    half = blocks // 2
    cut = (Step(),) * half + (Step(skip_block=PICTURES),) * (blocks - half)
    return {
        "dense": plain(blocks),
        "AttnCut": Route((Step(window=0),) * blocks),
        "AttnCut, window 16": Route((Step(window=16),) * blocks),
        f"LayerCut {blocks - half}": Route(cut),
    }


def race(
    model: LlamaModel, detours: Detours, ways: dict[str, Route], count: int, text: int, rounds: int
) -> dict[str, float]:
    """Median seconds of a prefill, by way."""
    embeds = torch.randn(1, count + text, model.config.hidden_size)
    kinds = torch.full((1, count + text), PROMPT, dtype=torch.uint8)
    kinds[:, text // 2 : text // 2 + count] = PICTURE
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first warms up
        for name, route in ways.items():
            detours.follow(route)
            detours.tell(kinds)
            began = perf_counter()
            model(inputs_embeds=embeds, use_cache=True)
            found[name].append(perf_counter() - began)
    detours.leave()
    return {name: median(times[1:]) for name, times in found.items()}


if __name__ == "__main__":
    main()
