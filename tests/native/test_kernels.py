"""The C library: products against float64, alike for any number of threads, under sanitizers."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimsearch import compiled
from slimsearch.errors import SettingsError
from slimsearch.graphs.anatomy import Matrix
from slimsearch.graphs.int8 import to_steps
from slimsearch.native import library, parts, sources
from slimsearch.native.library import Engine

DRIVER = Path(__file__).with_name("fuzz.c")
NUMBERS = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}
here = pytest.mark.skipif(library.load() is None, reason="no C compiler here")


class Packed:
    """A matrix as an export packs it, and as the library takes it."""

    def __init__(self, weight: torch.Tensor, dtype: str, bias: torch.Tensor | None = None):
        rows, columns = weight.shape
        self.arrays = {}
        for part in parts.packed(Matrix("m", weight, bias), dtype):
            content = part.make()
            assert content.nbytes == part.size
            self.arrays[part.name[2:]] = np.ascontiguousarray(content)
        kind = library.KINDS.index(dtype)
        self.matrix = library.Matrix(rows, columns, kind)
        for name, array in self.arrays.items():
            setattr(self.matrix, name, library.address(array))
        self.count = (self.arrays["values"].nbytes - parts.SLACK) // NUMBERS[dtype]().itemsize

    def number(self, name: str, dtype: type) -> np.ndarray:
        return self.arrays[name].reshape(-1).view(np.uint8).view(dtype)


def sparse(rows: int, columns: int, kept: float, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=draw)
    return weight * (torch.rand(rows, columns, generator=draw) < kept)


def multiplied(packed: Packed, x: np.ndarray, threads: int = 2, variant: str = "") -> np.ndarray:
    engine = Engine(threads, variant)
    try:
        return engine.multiply(packed.matrix, x)
    finally:
        engine.close()


@here
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 130),
    columns=st.integers(1, 300),
    tokens=st.sampled_from([1, 2, 3, 4, 5, 16, 33, 70]),
    kept=st.sampled_from([0.0, 0.02, 0.5, 0.97, 1.0]),
    dtype=st.sampled_from(library.KINDS),
    variant=st.sampled_from(library.VARIANTS),
)
def test_products_are_those_of_float64(rows, columns, tokens, kept, dtype, variant):
    """Within fp32; where tokens are rounded (int8, many with bf16), against rounded ones."""
    weight = sparse(rows, columns, kept, rows).bfloat16().float()
    bias = torch.randn(rows, generator=torch.Generator().manual_seed(1))
    packed = Packed(weight, dtype, bias)
    assert library.check(packed.matrix, packed.count) == -1
    x = np.random.default_rng(columns).standard_normal((tokens, columns)).astype(np.float32)
    used, exact = x.astype(np.float64), weight.double().numpy()
    if dtype == "int8":
        step = np.abs(x).max(1, keepdims=True) / np.float32(127)
        used = np.rint(x * (np.float32(1) / step)).astype(np.float64) * step
        scale = packed.number("scale", np.float32)
        exact = to_steps(weight).double().numpy() * scale[:, None].astype(np.float64)
    elif dtype == "bfloat16" and tokens > 64:
        used = torch.from_numpy(x).bfloat16().double().numpy()
    wanted = used @ exact.T + bias.double().numpy()
    found = multiplied(packed, x, variant=variant)
    length = np.sqrt((used**2) @ (exact**2).T)
    assert (np.abs(found - wanted) <= 2e-5 * (length + 1)).all()


@here
@pytest.mark.parametrize("dtype", library.KINDS)
@pytest.mark.parametrize("tokens", [1, 3, 16, 100])
def test_the_number_of_threads_changes_no_bit(dtype, tokens):
    packed = Packed(sparse(1000, 700, 0.4), dtype)
    x = np.random.default_rng(0).standard_normal((tokens, 700)).astype(np.float32)
    results = [multiplied(packed, x, threads) for threads in (1, 2, 3, 7)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


@here
def test_a_matrix_whose_parts_do_not_fit_together_is_found():
    packed = Packed(sparse(40, 130, 0.5), "bfloat16")
    mask, starts = packed.number("mask", np.uint64), packed.number("starts", np.int64)
    assert library.check(packed.matrix, int(starts[-1]) - 1) == 39
    mask[3 * 7] ^= np.uint64(1)
    assert library.check(packed.matrix, packed.count) == 8
    mask[3 * 7] ^= np.uint64(1)
    mask[3 * 5 + 2] |= np.uint64(1 << 63)  # behind the last column
    assert library.check(packed.matrix, packed.count) == 5
    mask[3 * 5 + 2] &= np.uint64((1 << 63) - 1)
    starts[12] += 1
    assert library.check(packed.matrix, packed.count) == 12
    starts[12] -= 1
    starts[-1] = 1 << 40
    assert library.check(packed.matrix, packed.count) >= 0


@here
def test_bytes_are_what_theory_says():
    """A bit for each weight and what stayed; where that is more than all of them, all of them."""
    weight = sparse(512, 640, 0.5)
    for dtype, width in (("float32", 4), ("bfloat16", 2), ("int8", 1)):
        kept = int((to_steps(weight) if dtype == "int8" else weight).count_nonzero())
        size = sum(part.size for part in parts.packed(Matrix("m", weight, None), dtype))
        assert 0 <= size - (weight.numel() / 8 + kept * width) < 513 * 8 + 512 * 8 + 192
        whole = sum(
            part.size for part in parts.packed(Matrix("m", torch.ones(64, 64), None), dtype)
        )
        assert whole <= 64 * 64 * width + 64 * 8 + 64


def test_structures_are_as_long_as_in_c(tmp_path):
    compiler = compiled.found_compiler()
    if compiler is None:
        pytest.skip("no C compiler here")
    names = ("Matrix", "Block", "Decoder", "Step")
    shown = "".join(f'printf("%zu ", sizeof({name}));' for name in names)
    source = tmp_path / "sizes.c"
    source.write_text(f'#include <stdio.h>\n#include "native.h"\nint main(void) {{ {shown} }}')
    program = tmp_path / "sizes"
    subprocess.run([compiler, f"-I{sources.FOLDER}", str(source), "-o", str(program)], check=True)
    found = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    assert list(map(int, found.split())) == [ctypes.sizeof(getattr(library, n)) for n in names]


@pytest.mark.timeout(200)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="sanitizers come with gcc")
def test_sanitizers_find_nothing(tmp_path):
    """Random shapes, masks and decoders through every variant, with ASan and UBSan watching."""
    program = tmp_path / "fuzz"
    flags = [flag for flag in sources.FLAGS if flag not in ("-O2", "-fPIC", "-shared", "-lm")]
    watched = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    objects = []
    for source in (*sources.SOURCES, DRIVER):
        made = tmp_path / f"{source.stem}.o"
        command = [
            "gcc",
            *flags,
            *watched,
            f"-I{sources.FOLDER}",
            "-c",
            str(source),
            "-o",
            str(made),
        ]
        objects.append((made, subprocess.Popen(command)))
    assert all(process.wait() == 0 for _, process in objects)
    made = [str(file) for file, _ in objects]
    subprocess.run(["gcc", *watched, "-pthread", *made, "-o", str(program), "-lm"], check=True)
    done = subprocess.run([str(program), "5", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    engine = library.load()
    best = "" if engine is None else f", variants up to {engine.best_variant()}"
    assert done.stdout.startswith(f"2 rounds{best}")


def test_without_a_compiler_there_is_one_line(monkeypatch):
    library.load.cache_clear()
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    monkeypatch.setattr(sources, "BUILT", Path("none"))
    try:
        with pytest.raises(SettingsError, match=r"needs a C compiler.*--runtime torch"):
            Engine()
        assert "\n" not in library.absent()
    finally:
        library.load.cache_clear()
