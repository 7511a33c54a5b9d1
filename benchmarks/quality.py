"""What pruned models kept, on text and pairs that no search saw: ratios to the first folder, dense.

python benchmarks/quality.py DENSE PRUNED [PRUNED ...] --text valid.txt --pairs dev.json
"""

from argparse import ArgumentParser
from math import exp
from pathlib import Path

import torch

from slimsearch.calibration.pairs import gather_pairs
from slimsearch.calibration.recipe import FilePairs
from slimsearch.model import checkpoint, conversation, loading

LENGTH, TOKENS = 256, 4096


def measure(folder: str, text: Path, pairs: str, count: int, every: int) -> tuple[float, ...]:
    """Perplexity, exact-match accuracy and sparsity of a model folder, in fp32."""
    model = loading.load(checkpoint.find(folder), "cpu", "float32")
    speech = conversation.load(model.checkpoint)
    ids = speech.tokens(text.read_text("utf-8"))
    rows = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)[::every]
    texts = conversation.text_batches(rows, model.device, TOKENS)
    asked = gather_pairs(FilePairs(pairs), count, 0, 0).used
    seen = conversation.pair_batches(model, speech, asked, TOKENS)
    right = [hit for batch in seen for row in model.answers_right(batch) for hit in row]
    zeros = sum(int((model.linear(m.name).weight == 0).sum()) for m in model.matrices)
    sparsity = zeros / sum(m.size for m in model.matrices)
    return exp(model.mean_loss(texts)), sum(right) / len(right), sparsity


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="the dense model, then pruned ones")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--pair-count", type=int, default=1000)
    parser.add_argument("--every", type=int, default=3, help="reads every so many-th segment")
    given = parser.parse_args()
    dense: tuple[float, ...] | None = None
    for folder in given.folders:
        found = measure(folder, given.text, given.pairs, given.pair_count, given.every)
        dense = dense or found
        print(
            f"{folder}: sparsity {found[2]:.3f}, perplexity {found[0]:.2f} "
            f"({found[0] / dense[0]:.3f} of dense), accuracy {found[1]:.4f} "
            f"({found[1] / dense[1]:.3f} of dense)",
            flush=True,
        )


if __name__ == "__main__":
    main()
