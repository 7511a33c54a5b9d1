"""DeepSparse in its own process: right answers, no network, deaths told and not shared."""

import os
import platform
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from slimsearch.errors import EngineError
from slimsearch.graphs.sheet import Sheet
from slimsearch.guest import host, inside
from slimsearch.guest.host import Guest
from tests.guest.conftest import needs_deepsparse

X = np.arange(48, dtype=np.float32).reshape(1, 3, 16)


def test_an_engine_multiplies(guest, product):
    file, weight = product
    engine = guest.compile("product", file)
    (y,) = guest.run("product", [X], [None])
    np.testing.assert_allclose(y, X @ weight, rtol=1e-5)
    assert engine.supported == 1.0
    assert engine.inputs == ("x",)
    assert engine.outputs == ("y",)
    assert engine.seconds > 0


def test_held_arrays_are_written_and_read_in_the_guest(guest, tmp_path):
    """An output goes into a held array at a place, and comes back as the next run's input."""
    sheet = Sheet("twice")
    given = sheet.input("x", np.float32, (1, 2, 4, 8))
    made = sheet.op("Mul", given, sheet.constant(2, np.float32))
    sheet.output("y", made, np.float32, (1, 2, 4, 8))
    sheet.write(tmp_path / "twice.onnx")
    guest.compile("twice", tmp_path / "twice.onnx")
    x = np.random.default_rng(1).standard_normal((1, 2, 4, 8), dtype=np.float32)
    guest.hold({"cache": (1, 2, 4, 8)})
    assert guest.run("twice", [x], [("cache", 1, 2)]) == []
    (y,) = guest.run("twice", ["cache"], [None])
    wanted = np.zeros_like(x)
    wanted[:, :, 1:3] = 2 * x[:, :, -2:]
    np.testing.assert_allclose(y, 2 * wanted, rtol=1e-6)


def test_every_layer_is_accounted_for(guest, product):
    layers = guest.analyse(product[0], [X])["layer_info"]
    assert any(layer["name"].startswith("ks_gevm") for layer in layers), layers


def test_passes_are_timed(guest, product):
    guest.compile("product", product[0])
    seconds = guest.time("product", [X], 4)
    assert len(seconds) == 4
    assert all(0 < one < 1 for one in seconds)


def test_a_refused_graph_leaves_the_guest_alive(guest, product, tmp_path):
    with pytest.raises(EngineError, match=r"compiling .*none\.onnx"):
        guest.compile("none", tmp_path / "none.onnx")
    guest.compile("product", product[0])


@needs_deepsparse
def test_a_death_is_told_with_what_was_being_done(product):
    with Guest(cores=1) as opened:
        os.kill(opened.process, signal.SIGABRT)
        with pytest.raises(EngineError, match=r"SIGABRT while compiling .*product\.onnx \(.*MiB"):
            opened.compile("product", product[0])


@needs_deepsparse
def test_a_killed_guest_hints_at_memory(product):
    with Guest(cores=1) as opened:
        os.kill(opened.process, signal.SIGKILL)
        with pytest.raises(EngineError, match="out of memory"):
            opened.compile("product", product[0])


@pytest.mark.parametrize(("said", "found"), [
    ("OS: Linux\n\nReceived signal: Segmentation fault (signal addr: 0)\n\nRegisters:\nRAX = 0\n"
     "Please email a copy of this stack trace to: them\n",
     "Received signal: Segmentation fault (signal addr: 0)"),
    ("Warning\n Assertion at a.cpp:7 \nBacktrace:", "Assertion at a.cpp:7"),
    ("one\ntwo\n\n", "two"), ("", ""), ("x" * 999, "x" * 300),
])  # fmt: skip
def test_of_all_that_was_said_the_reason_is_told(said, found):
    assert host.last_words(said) == found


@needs_deepsparse
def test_closing_ends_the_process():
    opened = Guest(cores=1)
    opened.close()
    assert not Path(f"/proc/{opened.process}").exists()


@needs_deepsparse
def test_the_guest_reaches_no_network(tmp_path):
    """Every way to a socket is watched while the guest begins and compiles; none is tried."""
    watched = (
        "import sys\n"
        "def watch(event, details):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        f"        open({str(tmp_path / 'tried')!r}, 'a').write(event)\n"
        "sys.addaudithook(watch)\n"
        f"sys.path.insert(0, {str(Path(inside.__file__).parent)!r})\n"
        "import inside, socket\n"
        "room, hello = inside._begin()\n"
        "assert hello['deepsparse'] == inside.WANTED\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', 9))\n"
        "except OSError as error:\n"
        "    assert 'no network' in str(error)\n"
        "else:\n"
        "    raise AssertionError('a connection was let through')\n"
    )
    subprocess.run([sys.executable, "-c", watched], check=True, capture_output=True)
    assert not (tmp_path / "tried").exists()


def test_an_interpreter_without_it_is_one_clear_line(tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(EngineError, match=r"bare cannot run DeepSparse: .*deepsparse") as caught:
        Guest(str(bare))
    assert "--deepsparse-python" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interpreter_that_is_none(tmp_path):
    with pytest.raises(EngineError, match="cannot be started"):
        Guest(str(tmp_path / "python"))


@pytest.mark.parametrize(
    ("system", "machine", "flags", "found", "reason"),
    [
        ("Darwin", "arm64", {"avx2"}, "1.8.0", "Linux x86-64 only, and this is Darwin arm64"),
        ("Linux", "aarch64", {"avx2"}, "1.8.0", "this is Linux aarch64"),
        ("Linux", "x86_64", {"sse2"}, "1.8.0", "no AVX2"),
        ("Linux", "x86_64", {"avx2"}, None, "not installed"),
        ("Linux", "x86_64", {"avx2"}, "1.9.0", "version 1.9.0 is installed"),
        ("Linux", "x86_64", {"avx2"}, "1.8.0", ""),
    ],
)
def test_where_it_cannot_run_it_says_why(monkeypatch, system, machine, flags, found, reason):
    def version(_):
        if found is None:
            raise metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(host, "processor_flags", lambda: flags)
    monkeypatch.setattr(metadata, "version", version)
    assert reason in host.missing()
    assert bool(host.missing()) == bool(reason)


def test_a_later_python_is_named(monkeypatch):
    def gone(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    monkeypatch.setattr(platform, "python_version", lambda: "3.12.1")
    monkeypatch.setattr(metadata, "version", gone)
    assert "Python 3.8 to 3.11 only, and this is 3.12.1" in host.missing()
