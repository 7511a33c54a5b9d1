"""Nothing that happens to a run costs more than the candidate in flight."""

import errno
import os
import shutil
import subprocess
import sys
import time

import pytest
from faults.harness import LONG, TALLY, Ended, Ground, attempt, times
from faults.victim import FailingStep, FullDisk, ReadOnly

from slimsearch.errors import RunError
from slimsearch.record import history, journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0 if LONG else 300)]

STAGES = ("load", "evaluation", "level store", "allocations", "search", "projector", "finalists",
          "baselines", "polish", "export", "samples")  # fmt: skip


# ---- killed


@pytest.mark.parametrize("number", times(len(STAGES), 110))
def test_killed_at_a_random_moment(ground: Ground, number):
    """In each stage in turn, a random moment after it began; often more than once."""
    run = ground.new()
    for _ in range(ground.random.randint(1, 3)):
        begun = (run / "journal.jsonl").exists() and bool(history.read(run).start)
        stage = STAGES[number % len(STAGES)]
        wait = ground.random.uniform(0, 0.02 if stage in ("level store", "export") else 0.2)
        ended = attempt(ground.work("resume" if begun else "search", run), kill_at=(stage, wait))
        if ended.how == "done":
            break
        TALLY[f"killed in stage {ended.stage}", "gone on with"] += 1
    if ended.how == "done":
        ground.same("killed at random moments", run)
    else:
        ground.go_on("killed at random moments", run)


@pytest.mark.parametrize("number", times(6, 400))
def test_killed_at_each_write_sync_and_rename(ground: Ground, number):
    step, after = (number // 2 + 1, bool(number % 2)) if LONG else (_some(ground), number % 2 == 0)
    if step > ground.steps:
        pytest.skip("there are fewer")
    run = ground.new()
    ended = attempt(ground.work("search", run), FailingStep(step, after=after))
    assert ended.how == "killed"
    ground.go_on("killed at a write, sync or rename", run)


# ---- the system refuses


@pytest.mark.parametrize("number", times(8, 400))
def test_each_write_sync_and_rename_fails_once(ground: Ground, number):
    step = number // 2 + 1 if LONG else _some(ground)
    if step > ground.steps:
        pytest.skip("there are fewer")
    run = ground.new()
    error = (errno.ENOSPC, errno.EIO)[number % 2]
    ended = attempt(ground.work("search", run), FailingStep(step, error))
    ground.refused("a write, sync or rename failed", ended, run, os.strerror(error))
    assert ended.said.startswith("5 ")
    ground.go_on("a write, sync or rename failed", run)


def _some(ground: Ground) -> int:
    return ground.random.randint(1, ground.steps)


@pytest.mark.parametrize("most", [100, 5000, 30_000, 110_000] if LONG else [5000, 110_000])
def test_the_disk_is_full(ground: Ground, most):
    """By a limit of the kernel on every file, libraries' own writes included."""
    run = ground.new()
    ended = attempt(ground.work("search", run), FullDisk(most))
    ground.refused("disk full", ended, run, "File too large")
    assert ended.said.startswith("5 ")
    ground.go_on("disk full", run)


def test_the_disk_is_full_while_exporting(ground: Ground):
    run = ground.cut(ground.ends()[-1])
    ended = attempt(ground.work("export", run), FullDisk(50_000))
    ground.refused("disk full", ended, run.name + "-export", "File too large")
    assert not list(ground.folder.glob(f".{run.name}*")), "something was left"
    assert attempt(ground.work("export", run)).how == "done"
    shutil.rmtree(run.with_name(run.name + "-export"))


def test_the_run_folder_cannot_be_written(ground: Ground):
    run = ground.cut(ground.ends()[-4])
    ended = attempt(ground.work("resume", run), ReadOnly(run))
    ground.refused("read-only folder", ended, run, "Permission denied")
    for path in (run, *run.rglob("*")):
        path.chmod(0o755)
    ground.go_on("read-only folder", run)


def test_the_place_for_a_run_cannot_be_written(ground: Ground):
    place = ground.new()
    place.mkdir()
    ended = attempt(ground.work("search", place / "run"), ReadOnly(place))
    ground.refused("read-only folder", ended, place / "run", "Permission denied")
    place.chmod(0o755)
    assert list(place.iterdir()) == []


# ---- the journal


def test_the_journal_cut_at_every_byte_is_a_shorter_journal(ground: Ground, tmp_path):
    """So that what holds for a cut behind a line holds for every cut within the next one."""
    content = (ground.unbroken / "journal.jsonl").read_bytes()
    ends = ground.ends()
    records = journal.read(ground.unbroken / "journal.jsonl")[0]
    file = tmp_path / "journal.jsonl"
    for size in range(len(content)):
        file.write_bytes(content[:size])
        whole = sum(end <= size for end in ends)
        assert journal.read(file) == (records[:whole], [0, *ends[:whole]]), size
        TALLY["journal cut at a byte", "read up to its last whole line"] += 1


@pytest.mark.parametrize("number", times(5, 200))
def test_a_cut_journal_is_gone_on_with(ground: Ground, number):
    ends = [0, *ground.ends()]
    if LONG:
        place, torn = divmod(number, 2)
        if place >= len(ends) - 1:
            pytest.skip("there are fewer lines")
    else:
        place, torn = ground.random.randrange(1, len(ends) - 1), number % 2
    size = ends[place] + (torn and ground.random.randrange(1, ends[place + 1] - ends[place]))
    run = ground.cut(size)
    if not place:  # nothing is left to go on with
        ended = attempt(ground.work("resume", run))
        ground.refused("journal cut", ended, run / "journal.jsonl", f"ends at byte {size}")
        shutil.rmtree(run)
        return
    ground.go_on("journal cut", run)


def test_a_flipped_byte_anywhere_in_the_journal_is_refused_with_its_place(ground: Ground, tmp_path):
    content = (ground.unbroken / "journal.jsonl").read_bytes()
    starts = [0, *ground.ends()]
    file = tmp_path / "journal.jsonl"
    for place in range(0, starts[-2], 1 if LONG else 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << ground.random.randrange(8)
        file.write_bytes(damaged)
        line = max(start for start in starts if start <= place)
        with pytest.raises(RunError, match=rf"journal\.jsonl is damaged at byte {line} "):
            pytest.fail(f"byte {place}: {journal.read(file)}")
        TALLY["journal with a flipped byte", "refused by name"] += 1
    run = ground.cut(len(content))
    ground.harm_file("journal with a flipped byte", run, run / "journal.jsonl",
                     lambda content: _flipped(content, len(content) - 20))  # fmt: skip


# ---- artefacts


def _flipped(content: bytes, place: int) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= 0x10
    return bytes(damaged)


def _artefacts(ground: Ground) -> list[str]:
    found = [*ground.unbroken.glob("levels/*"), *ground.unbroken.glob("projectors/*"),
             ground.unbroken / "settings.toml", ground.unbroken / "best.toml"]  # fmt: skip
    return sorted(str(file.relative_to(ground.unbroken)) for file in found)


@pytest.mark.parametrize("number", times(6, 120))
def test_an_artefact_cut_or_flipped(ground: Ground, number):
    names = _artefacts(ground)
    name = names[number % len(names)]
    run = ground.cut(ground.ends()[-2])  # everything but its last line
    size = (run / name).stat().st_size
    place = ground.random.randrange(size)
    if number // len(names) % 2:
        ground.harm_file("artefact with a flipped byte", run, run / name,
                         lambda content: _flipped(content, place))  # fmt: skip
    else:
        ground.harm_file("artefact cut", run, run / name, lambda content: content[:place])


def test_a_finished_runs_model_is_checked_before_it_is_exported(ground: Ground):
    names = [str(file.relative_to(ground.unbroken)) for file in ground.unbroken.glob("model/*")]
    for name in names if LONG else ["model/model.safetensors", "model/tokenizer.json"]:
        for harm in (lambda content: content[:-1], lambda content: _flipped(content, 40)):
            run = ground.cut(ground.ends()[-1])
            (run / name).write_bytes(harm((run / name).read_bytes()))
            ended = attempt(ground.work("export", run))
            ground.refused("exported model cut or flipped", ended, run / name)
            shutil.rmtree(run)


# ---- two at once


def test_two_processes_on_one_run(ground: Ground):
    """The second is kept out; once the first is dead its lock blocks nobody."""
    run = ground.cut(ground.ends()[2])
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time; from pathlib import Path; from slimsearch.record.run import reopen;"
         "held = reopen(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)", str(run)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == b"held\n"
        began = time.monotonic()
        ended = attempt(ground.work("resume", run))
        ground.refused("two processes on one run", ended, run, "in use by another process")
        assert time.monotonic() - began < 60
        holder.kill()
    assert (run / "lock").exists()
    ground.go_on("a dead process's lock", run)


def test_the_harness_would_notice(ground: Ground):
    """A run that ended otherwise is no survivor, and one that broke is no refusal."""
    run = ground.cut(ground.ends()[-1])
    (run / "best.toml").write_bytes(b"other")
    with pytest.raises(AssertionError):
        ground.same("none", run)
    with pytest.raises(AssertionError):
        ground.refused("none", Ended("done"), run)
