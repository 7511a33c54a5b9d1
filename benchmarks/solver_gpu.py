"""The solver's goals on a GPU: a decoder of LLaVA-1.5-7B's shape with random weights, in memory.

    python benchmarks/solver_gpu.py [--blocks 32] [--repeats 3] [--plain]
    python benchmarks/solver_gpu.py --device cpu --small     to try the script itself

Five levels of every matrix with their Hessians (goal: 15 s), one exact sequential prune (15 s),
scoring a stitched candidate (0.5 s), each on 64 segments of 256 tokens. `ratio` is goal / seconds:
1 and more is within it. Triton compiles its kernels in a first block, which is timed apart.
`--plain` also prunes one block column by column, as published, in the same process.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

import reference  # noqa: E402

from slimsearch import display, plugins  # noqa: E402
from slimsearch.model.batch import Calibrated  # noqa: E402
from slimsearch.model.checkpoint import Checkpoint  # noqa: E402
from slimsearch.model.conversation import text_batches  # noqa: E402
from slimsearch.model.vlm import VLM  # noqa: E402
from slimsearch.policy import Policy  # noqa: E402
from slimsearch.record.candidate import Candidate  # noqa: E402
from slimsearch.searching.evaluate import Evaluator  # noqa: E402
from slimsearch.solvers.sparsegpt import SparseGPT  # noqa: E402
from slimsearch.surgery import obs  # noqa: E402
from slimsearch.surgery.exact import prune_exactly  # noqa: E402
from slimsearch.surgery.level_store import LevelStore, fill  # noqa: E402
from slimsearch.surgery.walk import walk  # noqa: E402

LEVELS = (0.4, 0.45, 0.5, 0.55, 0.6)
SEGMENTS, LENGTH = 64, 256
GOALS = {"store": 15.0, "exact": 15.0, "score": 0.5}  # seconds, for 32 blocks
BLOCKS = 32


class Nowhere(Checkpoint):
    """A model that is on no disk: shapes and dtypes are its own."""

    def __init__(self, model: LlamaForCausalLM):
        weights = dict(model.named_parameters())
        super().__init__(Path(), {"model_type": "llama"}, dict.fromkeys(weights, ""))
        object.__setattr__(self, "weights", weights)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.weights[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self.weights[key].dtype


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a decoder of no size at all")
    parser.add_argument("--plain", action="store_true", help="one block column by column as well")
    given = parser.parse_args()
    vlm = decoder(given.blocks, given.device, given.small)
    batches = segments(vlm)
    card = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    display.say(
        f"{card}, solver in {obs.backend(given.device)}, {given.blocks} blocks, "
        f"{sum(matrix.size for matrix in vlm.matrices) / 1e9:.2f}e9 prunable weights, "
        f"{SEGMENTS} x {LENGTH} tokens, {vlm.dtype}"
    )
    levels = {matrix.name: LEVELS for matrix in vlm.matrices}
    store = LevelStore(vlm, "gpu")

    def solve(blocks: int | None = None) -> None:
        fill(store, vlm, batches, levels, SparseGPT(), "both", lambda: None, blocks=blocks)

    def prune() -> None:
        half = dict.fromkeys(levels, 0.5)
        prune_exactly(store, vlm, batches, half, SparseGPT(), "both")

    first, again = timed(solve, 1)(1), timed(solve, 1)(1)
    display.say(f"One block: {first:.2f} s with kernels to compile, {again:.2f} s without.")
    found = {"store": timed(solve, 1)(), "exact": timed(prune, given.repeats)()}
    found["score"] = scoring(vlm, store, batches, given.repeats)
    goals = {name: seconds * given.blocks / BLOCKS for name, seconds in GOALS.items()}
    rows = [
        [name, f"{seconds:.3f}", f"{goals[name]:.3f}", f"{goals[name] / seconds:.2f}"]
        for name, seconds in found.items()
    ]
    display.grid("Medians", ("what", "seconds", "goal", "ratio"), rows)
    display.say(f"The store takes {store.bytes / 2**30:.1f} GiB.")
    if given.device == "cuda":
        display.say(f"Peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB.")
    if given.plain:
        store.restore(vlm)
        spent = plain(vlm, batches)
        display.say(
            f"One block column by column, five levels: {spent:.1f} s, {spent / again:.1f} times "
            f"as long as stacked with its Hessians."
        )


def decoder(blocks: int, device: str, small: bool) -> VLM:
    wide = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}
    narrow = {"hidden_size": 64, "intermediate_size": 172, "num_attention_heads": 4}
    config = LlamaConfig(
        **(narrow if small else wide), num_hidden_layers=blocks, vocab_size=32064,
        max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    model.eval().requires_grad_(False)
    return VLM(model, plugins.find("architectures", "llama")(), Nowhere(model))


def segments(vlm: VLM) -> list:
    ids = torch.randint(5, 32000, (SEGMENTS, LENGTH), generator=torch.Generator().manual_seed(0))
    return text_batches(ids, vlm.device, 4096)


def timed(work: Callable, repeats: int) -> Callable[..., float]:
    """The median of its seconds, the device's work included."""

    def run(*given) -> float:
        seconds = []
        for _ in range(repeats):
            wait()
            began = perf_counter()
            work(*given)
            wait()
            seconds.append(perf_counter() - began)
        return median(seconds)

    return run


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def scoring(vlm: VLM, store: LevelStore, batches: list, repeats: int) -> float:
    """Candidates that differ in every matrix: the worst case for stitching."""
    family = plugins.find("families", "layer_sparsity")()
    terms = {name: plugins.find("objectives", name)() for name in ("text_loss", "weight_norm")}
    store.restore(vlm)
    evaluator = Evaluator(
        vlm, store, Calibrated(tuple(batches), ()), {"layer_sparsity": family}, terms,
        {"text_loss": 1.0, "weight_norm": 0.5},
    )  # fmt: skip

    def candidate(number: int) -> Candidate:
        chosen = {
            matrix.name: LEVELS[(place + number) % len(LEVELS)]
            for place, matrix in enumerate(vlm.matrices)
        }
        return Candidate(str(number), (number,), Policy({"layer_sparsity": chosen}))

    evaluator.score(candidate(0), 0)
    numbers = iter(range(1, 1 + repeats * 5))
    return timed(lambda: evaluator.score(candidate(next(numbers)), 0), repeats * 5)()


def plain(vlm: VLM, batches: list) -> float:
    """The published solve of the first block's matrices, a factor and a pass for each level."""
    stops = walk(vlm, batches, "both", pruned_inputs=False)
    wanted: list[tuple[Tensor, Tensor]] = []
    for _, stop in zip(vlm.stages, stops, strict=False):
        wanted += [(vlm.linear(matrix).weight, stop.hessian.matrix) for matrix in stop.matrices]

    def solve() -> None:
        for weights, matrix in wanted:
            upper, _ = reference.inverse_factor(matrix, 0.01)
            reference.sparsegpt(weights.float(), upper, 0.5)

    solve()  # warm
    return timed(solve, 1)() * len(LEVELS)


if __name__ == "__main__":
    main()
