"""Joins a Ray cluster, or starts one on this machine alone and takes it away again.

A cluster of our own keeps to the loopback interface and to a folder that nobody else may enter; no
dashboard, no usage statistics (privacy.py), no log lines between ours.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from slimsearch.errors import ResourceError, Stopped

# Ray reads its switches when it is imported. This one keeps a cluster of our own, which is for
# nobody else, to the loopback interface; who calls there needs the token that Ray makes.
OURS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Whether processes of a cluster show each other a token, and where it is from.
MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
# What Ray would print into our output: every line of it is left out.
SILENCE = {"RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_SCHEDULER_EVENTS": "0"}

PATIENCE = 10  # seconds for a cluster to answer


@contextmanager
def connected(address: str, cpus: int, gpus: int) -> Iterator[None]:
    """Within the block this process drives the cluster at the address, or one of its own."""
    for name, value in (SILENCE if address else SILENCE | OURS).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():  # whoever called us has connected, and stays so
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="slim-", ignore_cleanup_errors=True) as folder,
        nullcontext() if address else _own_token(),
    ):
        try:
            _begin(address, cpus, gpus, Path(folder) / "ray")
            yield
        finally:
            ray.shutdown()


def resources() -> tuple[float, float]:
    """GPUs and cores of the whole cluster."""
    import ray

    found = ray.cluster_resources()
    return found.get("GPU", 0.0), found.get("CPU", 1.0)


@contextmanager
def _own_token() -> Iterator[None]:
    """A token for a cluster of our own that ends with it; Ray would leave one in the home folder.

    What the user has set stays as it is.
    """
    if TOKEN in os.environ or TOKEN_FILE in os.environ or os.environ.get(MODE, "token") != "token":
        yield
        return
    from ray import _raylet

    loader: Any = _raylet.AuthenticationTokenLoader.instance()  # pyright: ignore
    os.environ[TOKEN] = secrets.token_hex(32)
    loader.reset_cache()  # it keeps the token that it read last
    try:
        yield
    finally:
        del os.environ[TOKEN]
        loader.reset_cache()


def _begin(address: str, cpus: int, gpus: int, folder: Path) -> None:
    import ray

    given: dict[str, Any] = {"address": address}
    if not address:
        given = {
            "address": "local", "num_cpus": cpus, "num_gpus": gpus,
            "include_dashboard": False, "_temp_dir": str(folder),
        }  # fmt: skip
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        _knock(address)
        with _signals_kept():
            ray.init(**given, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises that itself where its start takes too long
        where = f"at {address}" if address else "on this machine"
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise ResourceError(
            f"No Ray cluster could be had {where} ({reason}). Start one with `ray start --head`, "
            f"or leave --ray-address out."
        ) from error


def _knock(address: str) -> None:
    """Fails at once where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), PATIENCE).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts back what is done at Ctrl-C and SIGTERM: Ray would end the process its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit:  # Ray's way while it begins
        raise Stopped("stopped.", 128 + signal.SIGTERM) from None
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
