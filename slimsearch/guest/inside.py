"""What runs inside the guest's process: DeepSparse, driven over two pipes.

It is started as a file by an interpreter that may hold nothing but deepsparse and numpy (Python
3.8 or later), so it imports nothing of slimsearch; `host.py` is its other end. A message is
four bytes of length, a JSON header, then the bytes of the arrays that the header names. Arrays
that are `held` stay here between calls, so that a cache never crosses the pipe.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time

WANTED = "1.8.0"


def send(stream, header, arrays=()):
    """One message: a header and the arrays that go with it."""
    shapes = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps({**header, "arrays": shapes}).encode()
    stream.write(struct.pack("<I", len(text)) + text)
    for array in arrays:
        stream.write(memoryview(array.reshape(-1)).cast("B"))
    stream.flush()


def receive(stream):
    """The next message, or EOFError where the other end has gone."""
    import numpy

    (length,) = struct.unpack("<I", _exactly(stream, 4))
    header = json.loads(bytes(_exactly(stream, length)))
    arrays = []
    for kind, shape in header.pop("arrays"):
        array = numpy.empty(shape, kind)
        _fill(stream, array.reshape(-1).data.cast("B"))
        arrays.append(array)
    return header, arrays


class Room:
    """The compiled engines and held arrays of one guest."""

    def __init__(self, deepsparse):
        self._deepsparse = deepsparse
        self._engines = {}
        self._held = {}

    def compile(self, _, name, file, cores):
        """Compiles a graph of fixed shapes; `name` is what later calls say."""
        began = time.perf_counter()
        engine = self._deepsparse.Engine(file, batch_size=1, num_cores=cores or None)
        self._engines[name] = engine
        return {
            "seconds": time.perf_counter() - began,
            "supported": engine.fraction_of_supported_ops,
            "inputs": engine.input_names,
            "outputs": engine.output_names,
        }, []

    def drop(self, _, name):
        """Forgets an engine and frees its memory."""
        self._engines.pop(name, None)
        return {}, []

    def hold(self, _, shapes):
        """Sets arrays of zeros up here under their names."""
        import numpy

        for name, shape in shapes.items():
            self._held[name] = numpy.zeros(shape, numpy.float32)
        return {}, []

    def release(self, _):
        """Forgets every held array."""
        self._held.clear()
        return {}, []

    def run(self, arrays, name, held, keep):
        """One pass. `held` names the inputs that lie here, None: the next array of the message.
        `keep` says for an output [held array, first place on axis 2, how many of its last], or
        None: send it back."""
        engine, given = self._engines[name], iter(arrays)
        inputs = [next(given) if place is None else self._held[place] for place in held]
        began = time.perf_counter()
        outputs = engine.run(inputs, val_inp=False)
        seconds = time.perf_counter() - began
        back = []
        for output, place in zip(outputs, keep):  # noqa: B905  Python 3.8 knows no strict
            if place is None:
                back.append(output)
            else:
                into, first, count = place
                self._held[into][:, :, first : first + count] = output[:, :, -count:]
        return {"seconds": seconds}, back

    def time(self, arrays, name, repeats):
        """Seconds of each of several passes over the same inputs."""
        engine, seconds = self._engines[name], []
        for _ in range(repeats):
            began = time.perf_counter()
            engine.run(arrays, val_inp=False)
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}, []

    def analyse(self, arrays, file, cores, repeats):
        """The engine's own account of every layer: kernels, dimensions, milliseconds."""
        found = self._deepsparse.engine.model_debug_analysis(
            file, arrays, 1, cores or None, num_iterations=repeats, num_warmup_iterations=2
        )
        return {"analysis": json.loads(json.dumps(found, default=float))}, []


def main():
    """Answers orders from standard input until it closes."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the engine prints must not get between the messages
    threading.Thread(target=_outlive_nobody, args=(os.getppid(),), daemon=True).start()
    try:
        room, hello = _begin()
    except Exception as error:
        send(sink, {"error": f"{type(error).__name__}: {error}"})
        return
    send(sink, hello)
    while True:
        try:
            header, arrays = receive(source)
        except EOFError:
            return
        order = getattr(room, header.pop("order"))
        try:
            answer, back = order(arrays, **header)
        except Exception as error:
            answer, back = {"error": f"{type(error).__name__}: {error}"}, []
        send(sink, answer, back)


def _begin():
    """The engine without its telemetry, its benchmarks' torch, or any way to the network."""
    os.environ["NM_DISABLE_ANALYTICS"] = "1"
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  deepsparse takes torch along where it finds it; unused here
    socket.socket.connect = socket.socket.connect_ex = _refuse
    socket.getaddrinfo = socket.create_connection = _refuse
    import deepsparse
    import numpy

    if deepsparse.__version__ != WANTED:
        raise ImportError(f"found deepsparse {deepsparse.__version__}, wanted {WANTED}")
    architecture = dict(deepsparse.cpu.cpu_architecture())
    return Room(deepsparse), {
        "deepsparse": deepsparse.__version__,
        "numpy": numpy.__version__,
        "python": sys.version.split()[0],
        "isa": architecture["isa"],
        "vnni": architecture["vnni"],
        "cores": architecture["available_num_cores"],
    }


def _outlive_nobody(host):
    """Ends this process, also in the middle of a compilation, when the one that began it ends."""
    while os.getppid() == host:
        time.sleep(1)
    os._exit(1)


def _refuse(*_, **__):
    raise OSError("slimsearch lets DeepSparse reach no network")


def _exactly(stream, count):
    content = bytearray(count)
    _fill(stream, memoryview(content))
    return content


def _fill(stream, view):
    while len(view):
        read = stream.readinto(view)
        if not read:
            raise EOFError
        view = view[read:]


if __name__ == "__main__":
    main()
