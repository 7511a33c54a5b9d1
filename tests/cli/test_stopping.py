"""The first signal stops in order, the second at once, and none is lost."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FRAME = """
import hashlib, os, sys, time
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
LOST = """
        class Dying:
            def __del__(self):
                os.kill(os.getpid(), {number})
                time.sleep(0.01)
        Dying()
        while True: time.sleep(0.01)
"""


def started(body: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", FRAME.format(body=body)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def ticks(process: subprocess.Popen) -> int:
    """The processor time it has used, in hundredths of a second."""
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[11])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_an_exception(number):
    with started(LOOP) as process:
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert (said, process.returncode) == ("stopped\n", 128 + number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_leaves_at_once_whatever_goes_on(number):
    with started(DEAF) as process:
        begun = ticks(process)
        while ticks(process) < begun + 20:  # until it is deep in the call
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the call was interrupted, so nothing is tested"
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert (said, process.returncode) == ("", 128 + number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_falls_into_a_finaliser_is_not_lost(number):
    with started(LOST.format(number=int(number)).strip()) as process:
        said, complaint = process.communicate(timeout=60)
    assert (said, complaint, process.returncode) == ("stopped\n", "", 128 + number)
