"""A random LLaMA decoder in DeepSparse, sparse against dense, and other engines' dense beside it.

    python benchmarks/deepsparse_decoder.py [--width 2048] [--blocks 2] [--rounds 8] [--cores 2]
        [--phases 'prefill of 256,prefill of 640,one token behind 640'] [--kinds fp32,int8]
        [--sparsities 0.5,0.7]

Every phase compiles all engines first and then lets them take turns. `own` is the speed against
the same engine's dense, `best` against the best dense engine of all; both of medians, and of the
fast quarters where a busy machine spoils medians. `a weight` is how many times as long one that was
kept takes as one of the dense matrix: what a sparse kernel pays for knowing where it stands.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from numpy import ndarray

sys.path[:0] = [str(Path(__file__).parents[1])]

from slimsearch import display  # noqa: E402
from slimsearch.errors import SlimsearchError  # noqa: E402
from slimsearch.graphs import decoder  # noqa: E402
from slimsearch.graphs.anatomy import Block, Decoder, Matrix, Norm, Rotation  # noqa: E402
from slimsearch.graphs.int8 import Int8  # noqa: E402
from slimsearch.graphs.linear import dense  # noqa: E402
from slimsearch.guest.host import Guest  # noqa: E402
from slimsearch.latency import stopwatch  # noqa: E402
from slimsearch.latency.deepsparse import random_inputs  # noqa: E402
from slimsearch.latency.work import quick  # noqa: E402

PHASES = {
    "prefill of 256": decoder.Fixed(256, 0),
    "prefill of 640": decoder.Fixed(640, 0),
    "one token behind 640": decoder.Fixed(1, 640),
}
VOCABULARY, HEAD_WIDTH, PASSES = 1000, 128, 3


@dataclass
class Engine:
    name: str
    sparsity: float
    time: Callable[[], list[float]]  # seconds of several passes
    seconds: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--kinds", default="fp32,int8")
    parser.add_argument("--sparsities", default="0.5,0.7")
    options = parser.parse_args()
    torch.manual_seed(0)
    parts = random_decoder(options.width, options.blocks)
    levels = [0.0, *map(float, options.sparsities.split(","))]
    for phase in options.phases.split(","):
        with ExitStack() as stack, TemporaryDirectory() as place:
            kinds = options.kinds.split(",")
            fixed = PHASES[phase]
            engines = opened(parts, fixed, kinds, levels, options.cores, Path(place), stack)
            for _ in range(options.rounds):
                for engine in engines:
                    engine.seconds += engine.time()
            show(f"{phase}, width {options.width}, {options.blocks} blocks", engines)


def random_decoder(width: int, blocks: int) -> Decoder:
    heads, mlp = width // HEAD_WIDTH, width * 11 // 4

    def matrix(name: str, rows: int, columns: int) -> Matrix:
        return Matrix(name, torch.randn(rows, columns) / columns**0.5, None)

    def block(index: int) -> Block:
        *asking, o = (matrix(f"blocks.{index}.{role}", width, width) for role in "qkvo")
        opening = (matrix(f"blocks.{index}.{role}", mlp, width) for role in ("gate", "up"))
        down, ones = matrix(f"blocks.{index}.down", width, mlp), Norm(torch.ones(width))
        return Block(
            tuple(asking), o, tuple(opening), down,
            before_attention=ones, before_mlp=ones, rotation=rotation,
        )  # fmt: skip

    turns = torch.outer(torch.arange(2048.0), 1e4 ** -(torch.arange(0, HEAD_WIDTH, 2) / HEAD_WIDTH))
    rotation = Rotation(turns.cos().repeat(1, 2), turns.sin().repeat(1, 2))
    return Decoder(
        blocks=tuple(block(index) for index in range(blocks)),
        embedding=torch.randn(VOCABULARY, width), norm=Norm(torch.ones(width)),
        head=matrix("head", VOCABULARY, width), heads=heads, key_heads=heads,
        head_width=HEAD_WIDTH, epsilon=1e-5, activation="silu", gated=True,
        scale=HEAD_WIDTH**-0.5, positions=len(turns),
    )  # fmt: skip


def opened(
    parts: Decoder,
    fixed: decoder.Fixed,
    kinds: Sequence[str],
    sparsities: Sequence[float],
    cores: int,
    place: Path,
    stack: ExitStack,
) -> list[Engine]:
    inputs = random_inputs(parts, fixed, len(parts.blocks))
    engines = []
    for kind in kinds:
        for sparsity in sparsities:
            file = place / f"{kind}-{sparsity}.onnx"
            linear = Int8() if kind == "int8" else dense
            decoder.build(stopwatch.thinned(parts, sparsity), fixed, linear).write(file)
            makers = {f"deepsparse {kind}": in_deepsparse}
            if not sparsity:
                makers[f"onnxruntime {kind}"] = in_onnxruntime
                if kind == "fp32":
                    makers |= {"openvino fp32": in_openvino("f32")}
                    makers |= {"openvino bf16": in_openvino("bf16")}
            for name, make in makers.items():
                try:
                    engines.append(Engine(name, sparsity, make(file, inputs, cores, stack), []))
                except (SlimsearchError, ImportError) as error:
                    display.say(f"{name} {sparsity}: {error}")
    return engines


def in_deepsparse(
    file: Path, inputs: dict[str, ndarray], cores: int, stack: ExitStack
) -> Callable[[], list[float]]:
    guest = stack.enter_context(Guest(cores=cores))
    engine = guest.compile("graph", file)
    given = [inputs[name] for name in engine.inputs]
    display.say(f"{file.stem}: compiled in {engine.seconds:.1f} s, {engine.supported:.0%} its own")
    return lambda: guest.time("graph", given, PASSES)


def in_onnxruntime(
    file: Path, inputs: dict[str, ndarray], cores: int, stack: ExitStack
) -> Callable[[], list[float]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    return lambda: [timed(lambda: session.run(None, inputs)) for _ in range(PASSES)]


def in_openvino(precision: str) -> Callable[..., Callable[[], list[float]]]:
    def make(
        file: Path, inputs: dict[str, ndarray], cores: int, stack: ExitStack
    ) -> Callable[[], list[float]]:
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores}
        request = openvino.Core().compile_model(str(file), "CPU", hints).create_infer_request()
        return lambda: [timed(lambda: request.infer(inputs)) for _ in range(PASSES)]

    return make


def timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def show(title: str, engines: list[Engine]) -> None:
    for engine in engines:
        del engine.seconds[:PASSES]  # the first round warms up
    middle = {(e.name, e.sparsity): median(e.seconds) for e in engines}
    fast = {(e.name, e.sparsity): quick(e.seconds) for e in engines}
    best = min((t, name) for (name, s), t in middle.items() if not s)
    best_quick = min(t for (_, s), t in fast.items() if not s)

    def ratio(of: dict, name: str, sparsity: float) -> str:
        return f"{of[name, 0.0] / of[name, sparsity]:.2f}" if (name, 0.0) in of else "-"

    rows = [
        [
            name, f"{s:g}", f"{1e3 * t:.2f}", f"{1e3 * fast[name, s]:.2f}",
            ratio(middle, name, s), ratio(fast, name, s),
            f"{best[0] / t:.2f}", f"{best_quick / fast[name, s]:.2f}",
            f"{fast[name, s] / (1 - s) / fast[name, 0.0]:.2f}" if (name, 0.0) in fast else "-",
        ]
        for (name, s), t in middle.items()
    ]  # fmt: skip
    columns = (
        "engine",
        "sparsity",
        "median ms",
        "quick ms",
        "own",
        "own quick",
        "best",
        "best quick",
        "a weight",
    )
    display.grid(title, columns, rows)
    choice, time = min(middle.items(), key=lambda item: item[1])
    dense_line = f"the best dense one is {best[1]}, {best[0] / time:.2f} times its time"
    display.say(f"Fastest: {choice[0]} at sparsity {choice[1]:g}; {dense_line}.")


if __name__ == "__main__":
    main()
