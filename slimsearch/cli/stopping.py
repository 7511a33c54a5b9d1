"""Ctrl-C and SIGTERM: the first one stops in order, a second one ends the process at once."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from slimsearch.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.05  # seconds after which a stop that was swallowed is raised again


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block the first signal raises Stopped, which closes what is open on its way out.

    Python sees a signal only between two of its own instructions, which a forward pass may keep it
    from for minutes. So the second one is left to the kernel, which ends the process there and
    then, also while a library is loaded or the interpreter winds down. One of the other number
    may come while Python has not seen the first yet: a thread of its own counts them. What was
    written before is whole.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    counter = _Counter(reading)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        _arm(number)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, counter.raise_again
    threading.Thread(target=counter.watch, daemon=True).start()
    try:
        yield
    except Stopped:
        before = {}  # the next one is the kernel's until the process is gone
        raise
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread


def _arm(number: int) -> None:
    """Has the next of these signals raise Stopped, and the kernel take the one after it."""
    signal.signal(number, _stop)
    if once := getattr(ctypes.CDLL(None), "sysv_signal", None):  # glibc's
        handler = ctypes.pythonapi.PyOS_getsig
        handler.restype = ctypes.c_void_p
        once(number, ctypes.c_void_p(handler(number)))


def _stop(number: int, _: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Stopped("stopped.", 128 + number)


class _Counter:
    """Counts signals as the kernel delivers them."""

    def __init__(self, reading: int):
        self._reading = reading
        self._allowed = 1

    def watch(self) -> None:
        """Ends the process at the first signal too many."""
        while numbers := os.read(self._reading, 1):
            if numbers[0] in SIGNALS:
                self._allowed -= 1
                if self._allowed < 0:
                    os._exit(128 + numbers[0])
        os.close(self._reading)

    def raise_again(self, unraisable: Any) -> None:
        """A stop that fell into a finaliser, where Python drops exceptions, comes again."""
        stop = unraisable.exc_value
        if not isinstance(stop, Stopped):
            sys.__unraisablehook__(unraisable)
            return
        self._allowed += 1
        _arm(stop.exit_code - 128)
        threading.Timer(AGAIN, signal.raise_signal, [stop.exit_code - 128]).start()
