"""Seconds by stage add up, whatever lies within what."""

import pytest

from slimsearch.searching import watch
from slimsearch.searching.watch import Watch


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(watch, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_a_stage_counts_its_seconds(clock):
    found = Watch()
    for _ in range(2):
        with found.stage("load"):
            clock(2)
        clock(5)
    assert found.seconds == {"load": 4}


def test_a_stage_within_a_stage_counts_for_itself_alone(clock):
    found = Watch()
    with found.stage("outer"):
        clock(1)
        with found.stage("inner"):
            clock(2)
            with found.stage("innermost"):
                clock(4)
        clock(8)
        with found.stage("inner"):
            clock(16)
    assert found.seconds == {"outer": 9, "inner": 18, "innermost": 4}
    assert sum(found.seconds.values()) == 31


def test_a_stage_that_fails_is_closed(clock):
    ended = []

    class Ending(Watch):
        def end(self, name: str) -> None:
            ended.append(name)

    def fail(found: Watch) -> None:
        with found.stage("outer"), found.stage("inner"):
            clock(3)
            raise ValueError

    found = Ending()
    with pytest.raises(ValueError):  # noqa: PT011  ours, with no words
        fail(found)
    assert ended == ["inner", "outer"]
    assert found.seconds == {"inner": 3, "outer": 0}
    with found.stage("outer"):
        clock(1)
    assert found.seconds["outer"] == 1


def test_advance_is_handed_out():
    steps = []

    class Counting(Watch):
        def advance(self) -> None:
            steps.append(1)

    with Counting().stage("search", 2) as advance:
        advance()
        advance()
    assert len(steps) == 2
