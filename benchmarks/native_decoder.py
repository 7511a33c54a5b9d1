"""A random LLaMA decoder in our own engine, sparse, against dense engines of the same precision.

    python benchmarks/native_decoder.py [--width 2048] [--blocks 3] [--rounds 6] [--cores 2]
        [--precision bf16|int8] [--phases 'one token behind 640,prompt of 256']

All engines are open at once and take turns; ratios are of medians, to the fastest dense engine of
torch, ONNX Runtime and OpenVINO. GB/s are the bytes of weights and cache that a pass reads, beside
what plain reading of memory reaches. That reading, of SEEN bytes before every pass, also drives
weights out of the caches, as the rest of a larger model would.
"""

import argparse
import ctypes
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from numpy import ndarray

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from deepsparse_decoder import VOCABULARY, random_decoder  # noqa: E402

from slimsearch import compiled, display  # noqa: E402
from slimsearch.graphs import decoder as graph  # noqa: E402
from slimsearch.graphs.anatomy import Decoder  # noqa: E402
from slimsearch.graphs.int8 import Int8, stored  # noqa: E402
from slimsearch.graphs.linear import dense  # noqa: E402
from slimsearch.latency import stopwatch  # noqa: E402
from slimsearch.latency.deepsparse import random_inputs  # noqa: E402
from slimsearch.latency.work import matrices_in, quick  # noqa: E402
from slimsearch.native import bare  # noqa: E402
from slimsearch.native.bare import Bare, Passes  # noqa: E402

PHASES = {  # tokens read at once, tokens before them
    "one token behind 640": (1, 640),
    "prompt of 256": (256, 0),
    "prompt of 640": (640, 0),
}
PASSES = 3  # of an engine in its turn
PROMPT, TOKEN, SAID = "prompt of 640", "one token behind 640", 64
SPARSITIES = (0.5, 0.6, 0.7)
WIDTHS = {"bf16": 2, "int8": 1}
WIDTHS_OF_CACHE = {"bf16": 4, "int8": 2}  # in our own engine
SEEN = 640 << 20  # bytes read to measure memory: past the last-level cache


@dataclass
class Engine:
    name: str
    sparsity: float
    read: int  # bytes of weights and cache in a pass
    time: Callable[[], float]  # seconds of one pass
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--precision", choices=WIDTHS, default="bf16")
    parser.add_argument("--phases", default=",".join(PHASES))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.cores)
    whole = random_decoder(options.width, options.blocks)
    middles: dict[str, dict[tuple[str, float], float]] = {}
    for phase in options.phases.split(","):
        with ExitStack() as stack, TemporaryDirectory() as place:
            memory = Memory(Path(place), options.cores)
            engines = list(opened(whole, PHASES[phase], options, Path(place), stack))
            for _ in range(options.rounds):
                for engine in engines:
                    for _ in range(PASSES):
                        memory.measure()
                        engine.seconds.append(engine.time())
            title = f"{phase}, width {options.width}, {options.blocks} blocks, {options.precision}"
            middles[phase] = show(title, engines, memory)
    if {PROMPT, TOKEN} <= middles.keys():
        show_both(middles[PROMPT], middles[TOKEN])


class Memory:
    """How fast memory is read, measured between passes."""

    def __init__(self, place: Path, cores: int):
        target, compiler = place / "read.so", compiled.found_compiler()
        source = Path(__file__).with_name("read_bandwidth.c")
        flags = ("-O3", "-march=native", "-fPIC", "-shared", "-pthread")
        assert compiler is not None, "a C compiler is needed"
        compiled.build(compiler, [source], flags, target)
        self._library = ctypes.CDLL(str(target))
        self._library.read_once.restype = ctypes.c_double
        self._content = np.ones(SEEN // 8, np.int64)
        self._cores, self.speeds = cores, []

    def measure(self) -> None:
        seen = ctypes.c_uint64()
        begin = -self._content.ctypes.data % 64
        seconds = self._library.read_once(
            ctypes.c_void_p(self._content.ctypes.data + begin), ctypes.c_int64(SEEN - 64),
            ctypes.c_int64(self._cores), ctypes.byref(seen),
        )  # fmt: skip
        self.speeds.append(SEEN / seconds / 1e9)


def opened(whole: Decoder, phase: tuple[int, int], options, place: Path, stack: ExitStack):
    """Our engine at every sparsity, and the dense ones."""
    precision, cores = options.precision, options.cores
    width = WIDTHS[precision]
    weights = whole.head.weight.numel() + sum(
        matrix.weight.numel() for matrix in matrices_in(whole)
    )
    cache = 2 * phase[1] * whole.key_heads * whole.head_width * len(whole.blocks)
    for sparsity in (0.0, *SPARSITIES):
        thinned = stopwatch.thinned(whole, sparsity)
        found = in_native(thinned, precision, place / f"{sparsity}", cores, stack)
        passes = Passes(found.session, whole.width, *phase)
        read = found.read + WIDTHS_OF_CACHE[precision] * cache
        yield Engine("native", sparsity, read, lambda passes=passes: passes.time(1)[0])
    fixed = graph.Fixed(*phase)
    inputs = random_inputs(whole, fixed, len(whole.blocks))
    dense_read = weights * width + 4 * cache
    if precision == "bf16":
        file = place / "dense.onnx"
        graph.build(whole, fixed, dense).write(file)
        yield Engine("openvino bf16", 0.0, dense_read, in_openvino(file, inputs, cores))
        yield Engine("torch bf16", 0.0, dense_read - 2 * cache, in_torch(whole, phase))
        return
    for name, linear, make in (
        ("onnxruntime int8", Int8(), in_onnxruntime),
        ("openvino int8 weights", stored, in_openvino),
    ):
        file = place / f"{name}.onnx"
        graph.build(whole, fixed, linear).write(file)
        yield Engine(name, 0.0, dense_read, make(file, inputs, cores))


def in_native(whole: Decoder, precision: str, place: Path, cores: int, stack: ExitStack) -> Bare:
    dtype = {"bf16": "bfloat16", "int8": "int8"}[precision]
    began = perf_counter()
    found = bare.opened(whole, dtype, place, cores)
    seconds = perf_counter() - began
    display.say(f"native, {found.bytes / 2**20:.0f} MiB: written and opened in {seconds:.2f} s")
    stack.callback(found.session.close)
    return found


def in_openvino(file: Path, inputs: dict[str, ndarray], cores: int) -> Callable[[], float]:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": cores}
    request = openvino.Core().compile_model(str(file), "CPU", hints).create_infer_request()
    return lambda: timed(lambda: request.infer(inputs))


def in_onnxruntime(file: Path, inputs: dict[str, ndarray], cores: int) -> Callable[[], float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    return lambda: timed(lambda: session.run(None, inputs))


def in_torch(whole: Decoder, phase: tuple[int, int]) -> Callable[[], float]:
    """transformers' LLaMA of the same shape, in bf16; its cache is cut back after each token."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    tokens, before = phase
    config = LlamaConfig(
        hidden_size=whole.width, intermediate_size=whole.blocks[0].down.weight.shape[1],
        num_hidden_layers=len(whole.blocks), num_attention_heads=whole.heads,
        num_key_value_heads=whole.key_heads, vocab_size=VOCABULARY, dtype=torch.bfloat16,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    given = torch.randn(1, tokens, whole.width, dtype=torch.bfloat16)
    held = DynamicCache()

    @torch.no_grad()
    def read(embeds: torch.Tensor, cache: DynamicCache) -> None:
        model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)

    if before:
        read(torch.randn(1, before, whole.width, dtype=torch.bfloat16), held)

    def once() -> float:
        if not before:
            return timed(lambda: read(given, DynamicCache()))
        seconds = timed(lambda: read(given, held))
        held.crop(-tokens)
        return seconds

    return once


def timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def show(title: str, engines: list[Engine], memory: Memory) -> dict[tuple[str, float], float]:
    """Prints what was timed; the median of each engine."""
    for engine in engines:
        del engine.seconds[:PASSES]  # the first round warms up
    middle = {(engine.name, engine.sparsity): median(engine.seconds) for engine in engines}
    chosen, best = best_dense(middle)
    fast = min(quick(engine.seconds) for engine in engines if engine.name != "native")
    reads = median(memory.speeds)
    rows = [
        [
            engine.name, f"{engine.sparsity:g}", f"{1e3 * time:.2f}", f"{best / time:.2f}",
            f"{fast / quick(engine.seconds):.2f}", f"{engine.read / 1e6:.0f}",
            f"{engine.read / time / 1e9:.1f}", f"{reads:.1f}",
        ]
        for engine, time in zip(engines, middle.values(), strict=True)
    ]  # fmt: skip
    columns = (
        "engine", "sparsity", "median ms", "of best dense", "quick", "MB", "GB/s", "memory GB/s",
    )  # fmt: skip
    display.grid(title, columns, rows)
    display.say(f"The best dense engine is {chosen}.")
    return middle


def show_both(
    prompt: dict[tuple[str, float], float], token: dict[tuple[str, float], float]
) -> None:
    """A prompt and SAID tokens after it, as so many of the passes timed."""
    whole = {engine: prompt[engine] + SAID * token[engine] for engine in prompt}
    chosen, best = best_dense(whole)
    rows = [
        [name, f"{sparsity:g}", f"{1e3 * time:.0f}", f"{best / time:.2f}"]
        for (name, sparsity), time in whole.items()
    ]
    columns = ("engine", "sparsity", "ms", "of best dense")
    display.grid(f"{PROMPT} and {SAID} tokens after it", columns, rows)
    display.say(f"The best dense engine is {chosen}.")


def best_dense(middle: dict[tuple[str, float], float]) -> tuple[str, float]:
    """The fastest engine of others."""
    time, name = min((time, name) for (name, _), time in middle.items() if name != "native")
    return name, time


if __name__ == "__main__":
    main()
