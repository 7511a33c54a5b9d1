"""What a search tells whoever watches it. This one only keeps time; the display draws."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from slimsearch.record.candidate import Round, Score


class Watch:
    """Seconds by stage are kept in `seconds`, in the order in which stages began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []  # seconds spent in stages within the open ones

    @contextmanager
    def stage(self, name: str, steps: int = 0) -> Iterator[Callable[[], None]]:
        """A named stretch of work; call what it yields after each of its steps.

        A stage within a stage counts for itself alone, so that the seconds add up.
        """
        began = perf_counter()
        self._inside.append(0.0)
        self.begin(name, steps)
        try:
            yield self.advance
        finally:
            took = perf_counter() - began
            own = took - self._inside.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + own
            if self._inside:
                self._inside[-1] += took
            self.end(name)

    def begin(self, name: str, steps: int) -> None: ...

    def advance(self) -> None: ...

    def end(self, name: str) -> None: ...

    def note(self, text: str) -> None:
        """A sentence that the user should read."""

    def scored(self, score: Score) -> None: ...

    def closed(self, done: Round) -> None: ...
