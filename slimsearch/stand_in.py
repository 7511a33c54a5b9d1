"""Modules called by another function for a while, and by what they were called before again."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def standing_in(modules: Iterable[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    changed = [(module, vars(module).get("forward")) for module in modules]
    try:
        for module, _ in changed:
            module.forward = forward
        yield
    finally:
        for module, before in changed:
            if before is None:
                del module.forward
            else:
                module.forward = before
