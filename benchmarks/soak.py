"""Soak: one search of thousands of small candidates, watched from outside.

    python benchmarks/soak.py                 two hours
    python benchmarks/soak.py --minutes 10    the short form

Prints, as it goes, how many candidates were scored, the search's resident set, the journal's size,
and how long reading it and the whole command `slimsearch status` take. Ends with SIGTERM. Fails
where the resident set, once warm, ever stands more than a tenth above what it was.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import tiny

from slimsearch import settings
from slimsearch.record import history

SLIMSEARCH = (sys.executable, "-c", "from slimsearch.cli import main; main()")
WARM = 0.2  # share of the time after which memory must be flat
MOST = 1.1


@dataclass(frozen=True)
class Sample:
    seconds: float
    scores: int
    resident: float  # MiB
    journal: float  # MiB
    reading: float  # seconds
    status: float  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--samples", type=int, default=20, help="how often to look")
    parser.add_argument("--strategy", default="random", help="one that proposes without end")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        samples = soak(Path(place), given.minutes * 60, given.samples, given.strategy)
    warm = [sample for sample in samples if sample.seconds >= WARM * given.minutes * 60]
    growth = max(sample.resident for sample in warm) / warm[0].resident
    print(f"{samples[-1].scores} candidates; resident set once warm at most x{growth:.3f}.")
    if growth > MOST:
        sys.exit(f"Memory is not flat: x{growth:.3f} where x{MOST} is allowed.")


def soak(place: Path, seconds: float, looks: int, strategy: str) -> list[Sample]:
    small = tiny.settings(
        tiny.llava(place / "model", blocks=4),
        tiny.pairs(place / "pairs"),
        tiny.text(place / "prose.txt"),
    )
    chosen = replace(
        small, policy="per_matrix", rounds=1_000_000, patience=0, candidates=16, survivors=6,
        pair_count=6, segments=2, strategy=strategy, out=str(place / "run"),
    )  # fmt: skip
    (place / "settings.toml").write_text(settings.write(chosen))
    words = (*SLIMSEARCH, "run", "--from", str(place / "settings.toml"))
    samples: list[Sample] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as search:
        while not (place / "run" / history.JOURNAL).exists():
            time.sleep(0.1)
        began = time.monotonic()
        print("   minutes  candidates  resident MiB  journal MiB  reading s   status s", flush=True)
        for look in range(1, looks + 1):
            time.sleep(max(0.0, began + look * seconds / looks - time.monotonic()))
            assert search.poll() is None, "the search has ended"
            samples.append(sample(search.pid, place / "run", time.monotonic() - began))
            show(samples[-1])
        search.send_signal(signal.SIGTERM)
        code = search.wait(timeout=300)
        assert code == 143, f"SIGTERM ended it with {code}"
    return samples


def sample(process: int, run: Path, seconds: float) -> Sample:
    status = Path(f"/proc/{process}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    began = time.perf_counter()
    scores = history.glance(run, 30).scored
    read = time.perf_counter()
    subprocess.run((*SLIMSEARCH, "status", str(run)), check=True, stdout=subprocess.DEVNULL)
    return Sample(
        seconds, scores, int(kilobytes) / 1024, (run / history.JOURNAL).stat().st_size / 2**20,
        read - began, time.perf_counter() - read,
    )  # fmt: skip


def show(found: Sample) -> None:
    print(
        f"{found.seconds / 60:10.1f}  {found.scores:10d}  {found.resident:12.1f}  "
        f"{found.journal:11.2f}  {found.reading:9.3f}  {found.status:9.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
