"""What a checkpoint's chat template may take: a program that jinja's sandbox lets run for ever."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import thread_time
from types import FrameType

from slimsearch.errors import ModelError

SECONDS = 10  # of the processor
AGAIN = 1  # seconds after which the clock is looked at again, or an end that was swallowed comes
ROOM = 1 << 30  # bytes more than the process holds
COPY = "Copy chat_template.jinja and tokenizer_config.json from the original model."


class _Ended(BaseException):
    """Past every `except Exception`: jinja has one around what it calculates beforehand."""


@contextmanager
def confined() -> Iterator[None]:
    """Within the block a template that takes too long or too much is refused."""
    with _in_time(), _in_bounds():
        yield


@contextmanager
def _in_time() -> Iterator[None]:
    """Has the kernel end it: a signal gets through loops and powers. Python takes signals in the
    main thread only; in another the time has no end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    until = thread_time() + SECONDS  # the kernel's alarm counts other threads' time too

    def look(_: int, __: FrameType | None) -> None:
        if thread_time() >= until:
            raise _Ended

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, AGAIN)
    try:
        yield
    except _Ended:
        raise ModelError(
            f"the chat template has not ended after {SECONDS} seconds. {COPY}"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before or signal.SIG_DFL)


@contextmanager
def _in_bounds() -> Iterator[None]:
    """Has the kernel refuse more memory; a limit that is there already and is lower stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lower = [most for most in (soft, hard) if most != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([_held() + ROOM, *lower]), hard))
    try:
        yield
    except MemoryError:
        raise ModelError(
            f"the chat template asks for more than {ROOM >> 30} GiB of memory. {COPY}"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held() -> int:
    """Bytes of this process that the limit counts; more than there are where nobody says."""
    try:
        with open("/proc/self/status") as status:
            told = (int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
            return next(told, 1 << 60)
    except OSError:
        return 1 << 60
