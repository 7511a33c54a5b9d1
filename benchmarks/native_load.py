"""How long a native export takes to open: mapped, held against its hashes, checked row by row.

    python benchmarks/native_load.py [--gigabytes 2] [--dtype bf16] [--cores 2]

A random decoder of width 4096 at sparsity 0.5 is written, its one block as often as it takes, and
opened several times. The file is in the system's cache, as after a download or an export.
"""

import argparse
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from deepsparse_decoder import random_decoder  # noqa: E402

from slimsearch import display  # noqa: E402
from slimsearch.graphs.anatomy import Block, Decoder  # noqa: E402
from slimsearch.latency import stopwatch  # noqa: E402
from slimsearch.model.checkpoint import Checkpoint  # noqa: E402
from slimsearch.native import bare, form  # noqa: E402
from slimsearch.native.form import Held  # noqa: E402
from slimsearch.native.session import NativeSession  # noqa: E402

WIDTH, SPARSITY, TIMES = 4096, 0.5, 5
WIDTHS = {"fp32": 4, "bf16": 2, "int8": 1}
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--dtype", choices=WIDTHS, default="bf16")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    one = stopwatch.thinned(random_decoder(WIDTH, 1), SPARSITY)
    weights = sum(matrix.weight.numel() for matrix in one.blocks[0].matrices.values())
    each = weights * (SPARSITY * WIDTHS[options.dtype] + 1 / 8)
    decoder = repeated(one, -int(-options.gigabytes * 1e9 // each))
    with TemporaryDirectory() as place:
        opened = bare.opened(decoder, DTYPES[options.dtype], Path(place), options.cores)
        opened.session.close()
        seal = form.seal(Path(place) / form.FORM / form.DECODER)
        held = Held(Checkpoint(Path(place), {}, {}), {form.DECODER: seal})
        seconds = []
        for _ in range(TIMES):
            began = perf_counter()
            with closing(NativeSession(held, options.cores)):
                seconds.append(perf_counter() - began)
    display.say(
        f"{opened.bytes / 1e9:.2f} GB in {options.dtype}: opened in {median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f})"
    )


def repeated(decoder: Decoder, count: int) -> Decoder:
    """Its block so many times, under names of their own."""

    def named(block: Block, index: int) -> Block:
        return block.changed(lambda one: replace(one, name=f"blocks.{index}.{one.role}"))

    (block,) = decoder.blocks
    return replace(decoder, blocks=tuple(named(block, index) for index in range(count)))


if __name__ == "__main__":
    main()
