"""A real browser, driven over a pipe: Chromium or a kin of it, without a driver or a library.

The messages are the DevTools protocol's: JSON, each ended by a zero byte, on descriptors 3 and 4.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0  # seconds


def find() -> str | None:
    """A browser that is installed; SLIMSEARCH_BROWSER names another."""
    given = os.environ.get("SLIMSEARCH_BROWSER")
    return given or next((place for name in NAMES if (place := shutil.which(name))), None)


class Page:
    """One tab of a browser."""

    def __init__(self, process: subprocess.Popen, reading: int, writing: int):
        self._process, self._reading, self._writing = process, reading, writing
        self._number, self._buffer = 0, b""
        self._session, self._scheme = "", []
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def open(self, file: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Shows a page and waits until all of it is there."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip
        self._scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media="screen", features=self._scheme)
        self.events.clear()
        self.call("Page.navigate", url=file.resolve().as_uri())
        until = time.monotonic() + PATIENCE
        while not any(told.get("method") == "Page.loadEventFired" for told in self.events):
            assert time.monotonic() < until, "the page did not load"
            self.events.append(self._next())

    def ask(self, script: str) -> Any:
        """What a piece of script gives on the page."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def picture(self, file: Path) -> bytes:
        """The whole page as PNG."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(told["data"]))
        return file.read_bytes()

    def printed(self, file: Path) -> bytes:
        """The page as it is printed, a PDF; whoever looked at it in the dark still does."""
        self.call("Emulation.clearDeviceMetricsOverride")
        self.call("Emulation.setEmulatedMedia", media="", features=self._scheme)
        told = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        file.write_bytes(base64.b64decode(told["data"]))
        return file.read_bytes()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._reading, 1 << 20)
            assert piece, f"the browser ended: {self._process.poll()}"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def opened(program: str, profile: Path) -> Iterator[Page]:
    """A browser without a window, and one page in it."""
    to_browser, from_us = _pipe()
    to_us, from_browser = _pipe()
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
        f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
    ]  # fmt: skip
    shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *command], pass_fds=(to_browser, from_browser),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(process, to_us, from_us)
    finally:
        os.close(from_us)
        os.close(to_us)
        process.terminate()
        process.wait()


def _pipe() -> tuple[int, int]:
    """Its two ends, on descriptors that cannot be those that the browser wants."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
