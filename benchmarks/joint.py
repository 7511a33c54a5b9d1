"""Sparsity, skips and cuts in one search, against searches of sparsity and of skips alone, each at
the same share of what the dense decoder spends on a prompt.

python benchmarks/joint.py MODEL --pairs calibration.json --text train.txt --out FOLDER
    --held-pairs dev.json --held-text valid.txt [--budget flops] [--ratio 0.5] [...]
"""

from argparse import ArgumentParser
from math import exp
from pathlib import Path

import torch

from slimsearch import Settings, search
from slimsearch.calibration.pairs import gather_pairs
from slimsearch.calibration.recipe import FilePairs
from slimsearch.model import checkpoint, conversation, loading

LENGTH, TOKENS = 256, 4096
LEVELS = "0.0, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95"
SPARSITY = f'[layer_sparsity]\n"blocks.*.*" = "{LEVELS}"\n'
SKIPS = "".join(
    f'[{family}]\n"blocks.*" = "0,1"\n' for family in ("skip_block", "skip_attention", "skip_ffn")
)
CUTS = '[attention_cut]\n"blocks.*" = "0,1"\n[layer_cut]\nlast = "0..8 by 1"\n'
SPACES = {"sparsity alone": SPARSITY, "skips alone": SKIPS, "joint": SPARSITY + SKIPS + CUTS}


def measure(folder: Path, text: Path, pairs: str, every: int) -> tuple[float, float, float]:
    """Perplexity, loss per answer token and accuracy, on what no search saw."""
    model = loading.load(checkpoint.find(str(folder)), "cpu", "float32")
    speech = conversation.load(model.checkpoint)
    ids = speech.tokens(text.read_text("utf-8"))
    rows = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)[::every]
    texts = conversation.text_batches(rows, model.device, TOKENS)
    asked = gather_pairs(FilePairs(pairs), 1000, 0, 0).used
    seen = conversation.pair_batches(model, speech, asked, TOKENS)
    right = [hit for batch in seen for row in model.answers_right(batch) for hit in row]
    return exp(model.mean_loss(texts)), model.mean_loss(seen), sum(right) / len(right)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--held-pairs", required=True)
    parser.add_argument("--held-text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="latency")
    parser.add_argument("--engine", default="deepsparse")
    parser.add_argument("--phase", default="prefill", help="of --budget latency, or decode")
    parser.add_argument(
        "--only", default="", help="one of the searches, so that they can run apart"
    )
    parser.add_argument("--finalists", type=int, default=4)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--prompt", type=int, default=128, help="tokens, a picture's among them")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--segments", type=int, default=64)
    parser.add_argument("--pair-count", type=int, default=64)
    parser.add_argument("--final-steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=3, help="reads every so many-th segment")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"{given.ratio:g} of the decoder's {given.budget} goes, of {given.prompt} tokens")
    spaces = {given.only: SPACES[given.only]} if given.only else SPACES
    for name, tables in spaces.items():
        file = given.out / f"{name.replace(' ', '-')}.toml"
        file.write_text(f'name = "{file.stem}"\nabout = "A benchmark."\n{tables}', "utf-8")
        found = search(
            Settings(
                model=given.model, policy=str(file), pairs=given.pairs, calibration=given.text,
                budget=given.budget, latency_engine=given.engine, latency_tokens=given.prompt,
                latency_phase=given.phase,
                ratio=given.ratio, rounds=given.rounds, patience=0, candidates=given.candidates,
                segments=given.segments, pair_count=given.pair_count, device="cpu",
                final_steps=given.final_steps, finalists=given.finalists, skip_baselines=True,
                objective="text_loss + 10*answer_loss", out=str(given.out / file.stem),
            )
        )  # fmt: skip
        perplexity, loss, right = measure(
            found.model, given.held_text, given.held_pairs, given.every
        )
        print(
            f"{name:>15}: VQA loss {loss:.4f}, accuracy {right:.4f}, perplexity {perplexity:.2f}; "
            f"{found.sparsity:.3f} of the weights zero",
            flush=True,
        )


if __name__ == "__main__":
    main()
