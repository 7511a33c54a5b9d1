"""Peak memory of loading a model against what its weights take, for a random decoder.

    python benchmarks/load_memory.py [GB on disk, default 1]

Prints a line for each pair of dtypes, on disk and in memory. The peak is the largest resident set
that the loading process had; what the libraries alone take is left out of the ratio.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from export_memory import make, peak

LOAD = (
    "import sys; from slimsearch.model import checkpoint, loading; "
    "from transformers.models.llama import modeling_llama; "
    "loading.load(checkpoint.find(sys.argv[1]), 'cpu', sys.argv[2]) "
    "if len(sys.argv) > 1 else None"
)


def main() -> None:
    size = float(sys.argv[1] if len(sys.argv) > 1 else 1) * 1e9
    alone = peak(LOAD)
    print(f"libraries alone: {alone / 1e9:.2f} GB")
    for stored in (torch.float32, torch.bfloat16, torch.float16):
        with TemporaryDirectory() as place:
            disk = make(Path(place), size, stored)
            for held in dict.fromkeys((stored, torch.float32)):
                weights = disk * held.itemsize / stored.itemsize
                most = peak(LOAD, place, str(held)[6:]) - alone
                print(
                    f"{str(stored)[6:]} on disk, {str(held)[6:]} in memory: weights "
                    f"{weights / 1e9:.2f} GB, peak {most / weights:.2f} times that"
                )


if __name__ == "__main__":
    main()
