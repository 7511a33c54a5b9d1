"""The first signal stops in order, the second at once, and none is lost."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FRAME = """
import atexit, collections, hashlib, itertools, os, sys, time
from slimsearch.cli.stopping import stoppable
from slimsearch.errors import Stopped
try:
    with stoppable():
        print("ready", flush=True)
        {body}
except Stopped as stop:
    print("stopped", flush=True)
    sys.exit(stop.exit_code)
"""
LOOP = "while True: time.sleep(0.01)"
DEAF = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # one call, for minutes
GREEDY = "collections.deque(itertools.repeat(0), maxlen=0)"  # for ever; no other thread gets to run
ENDING = f"atexit.register(lambda: {DEAF}); print('set', flush=True)\n        {LOOP}"
LOST = """
        class Dying:
            def __del__(self):
                os.kill(os.getpid(), {number})
                time.sleep(0.01)
        Dying()
        while True: time.sleep(0.01)
"""

IMPORTING = """
import signal, sys
from slimsearch.cli import main
class Slow:
    def find_spec(self, name, *_):
        if name == "slimsearch.cli.searching":
            signal.raise_signal({number})
sys.meta_path.insert(0, Slow())
sys.argv = ["slimsearch", "resume", "runs/my first"]
main()
"""


def started(body: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", FRAME.format(body=body)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def in_a_shell(process: subprocess.Popen) -> int:
    """The exit code as a shell sees it: a process that a signal ended has 128 plus its number."""
    return 128 - process.returncode if process.returncode < 0 else process.returncode


def busy(process: subprocess.Popen) -> None:
    """Waits until it is deep in a call."""
    begun = ticks(process)
    while ticks(process) < begun + 20:
        assert process.poll() is None, "it has ended"
        time.sleep(0.01)


def ticks(process: subprocess.Popen) -> int:
    """The processor time it has used, in hundredths of a second."""
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[11])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_an_exception(number):
    with started(LOOP) as process:
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert (said, process.returncode) == ("stopped\n", 128 + number)


def stopped_twice(body: str, first: int, second: int) -> tuple[str, int]:
    """What is said, and the exit code, of what sees neither signal."""
    with started(body) as process:
        busy(process)
        process.send_signal(first)
        time.sleep(0.5)
        assert process.poll() is None, "the call was interrupted, so nothing is tested"
        process.send_signal(second)
        said, _ = process.communicate(timeout=60)
    return said, in_a_shell(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_leaves_at_once_whatever_goes_on(number):
    assert stopped_twice(DEAF, signal.SIGINT, number) == ("", 128 + number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_waits_for_no_lock_of_the_interpreters(number):
    """A library that is being loaded holds it for seconds."""
    assert stopped_twice(GREEDY, number, number) == ("", 128 + number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_leaves_at_once_when_the_interpreter_winds_down(number):
    with started(ENDING) as process:
        assert process.stdout.readline() == "set\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped\n"
        busy(process)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert in_a_shell(process) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_falls_into_a_finaliser_is_not_lost(number):
    with started(LOST.format(number=int(number)).strip()) as process:
        said, complaint = process.communicate(timeout=60)
    assert (said, complaint, process.returncode) == ("stopped\n", "", 128 + number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_resumed_run_that_is_stopped_before_it_began_says_how_to_go_on(number):
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING.format(number=int(number))], capture_output=True, text=True
    )
    said = "slimsearch: stopped. Go on with: slimsearch resume 'runs/my first'\n"
    assert (done.stderr, done.returncode) == (said, 128 + number)
