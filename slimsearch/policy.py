"""A policy says what to remove from a model; a space is a policy whose numbers are still ranges.

Both are the same TOML file: a table for each family, a line for each part of the model.

    [layer_sparsity]
    "blocks.*" = "-0.10..+0.10 by 0.05"   # a range around the target ratio: a space
    "blocks.0" = 0.45                      # a number: a policy

Names are globs, compared part by part; a later line wins over an earlier one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from slimsearch import files
from slimsearch.errors import PolicyError

SPARSITY = "layer_sparsity"  # the family whose edits are levels of matrices

Table = Mapping[str, str | float]  # a family's lines: glob or option -> number, range or word


@dataclass(frozen=True)
class Matrix:
    """One prunable weight matrix; `name` is our own, such as 'blocks.3.gate'."""

    name: str
    rows: int
    columns: int

    @property
    def size(self) -> int:
        return self.rows * self.columns

    @property
    def block(self) -> str:
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Body:
    """What of a model a policy can speak of."""

    matrices: tuple[Matrix, ...]
    sees: bool = True
    classed: bool = True  # its vision tower has a class token

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The names of the decoder blocks, in order."""
        return tuple(dict.fromkeys(matrix.block for matrix in self.matrices))


@dataclass(frozen=True)
class Gene:
    """One choice of the search; `size` is the number of weights of whose share it decides."""

    family: str
    key: str
    choices: tuple[float, ...]
    size: int

    def nearest(self, value: float) -> int:
        """The index of the choice nearest to a value, the lower one of two."""
        return min(range(len(self.choices)), key=lambda i: abs(self.choices[i] - value))


@dataclass(frozen=True)
class Policy:
    """What to remove: family -> part -> number, and a family's options."""

    tables: Mapping[str, Table]

    def table(self, family: str) -> Table:
        return self.tables.get(family, {})


@dataclass(frozen=True)
class PolicyFile:
    """A policy or space as read from disk."""

    name: str
    about: str
    tables: Mapping[str, Table]
    file: str = field(default="", compare=False)


def read(file: Path) -> PolicyFile:
    """Reads a policy or a space; whether its families exist is for the plug-ins to say."""
    try:
        found = files.read_toml(file)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{file} is no readable policy file: {error}.") from None
    tables = {key: value for key, value in found.items() if isinstance(value, dict)}
    tables.pop("found", None)  # how a found policy scored: for people, not for us
    loose = set(found) - set(tables) - {"name", "about", "found"}
    if loose:
        raise PolicyError(
            f"{file} has an unknown key '{min(loose)}'. A policy holds name, about and one table "
            f"for each family, such as [layer_sparsity]."
        )
    if not tables:
        raise PolicyError(f"{file} removes nothing: it needs a table such as [layer_sparsity].")
    for family, table in tables.items():
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise PolicyError(
                    f"{file}: [{family}] '{key}' must be a number, a range or a word, found "
                    f"{value!r}."
                )
    return PolicyFile(found.get("name", file.stem), found.get("about", ""), tables, str(file))


def write(
    policy: Policy, name: str, about: str, found: Mapping[str, float | str] | None = None
) -> str:
    """The policy as TOML; `found` records how it scored."""
    lines = [f"name = {files.to_toml(name)}", f"about = {files.to_toml(about)}"]
    for family, table in policy.tables.items():
        lines += ["", f"[{family}]"]
        lines += [f"{files.to_toml(key)} = {_written(value)}" for key, value in table.items()]
    if found:
        lines += ["", "[found]"]
        lines += [f"{files.to_toml(key)} = {files.to_toml(value)}" for key, value in found.items()]
    return "\n".join(lines) + "\n"


def parse_levels(text: str | float, ratio: float, origin: str) -> tuple[float, ...]:
    """Sparsity levels from '-0.10..+0.10 by 0.05' (around the ratio), '0.4,0.5' or a number.

    A signed number is an offset from the ratio, an unsigned one a level by itself. Offsets that
    lead out of [0, 1] are dropped: a level beyond 'everything' means nothing.
    """
    if isinstance(text, int | float):
        parts = [repr(float(text))]
    elif ".." in text:
        parts = _spread(text, origin)
    else:
        parts = [part.strip() for part in text.split(",") if part.strip()]
    levels = set()
    for part in parts:
        value = _number(part, origin)
        offset = isinstance(text, str) and part[0] in "+-"
        level = round(ratio + value if offset else value, 9)
        if 0 <= level <= 1:
            levels.add(level)
        elif not offset:
            raise PolicyError(f"{origin}: level {part} cannot be, levels lie between 0 and 1.")
    if not levels:
        raise PolicyError(f"{origin}: '{text}' leaves no level between 0 and 1 at ratio {ratio:g}.")
    return tuple(sorted(levels))


def parse_counts(text: str | float, origin: str, most: int | None = None) -> tuple[int, ...]:
    """Whole numbers from '0..8 by 2', '0,1' or a number, none above `most`."""
    found = parse_numbers(text, origin, "whole number")
    if any(value != int(value) for value in found):
        raise PolicyError(f"{origin}: {text!r} is no whole number, and no range of them.")
    if most is not None and found[-1] > most:
        raise PolicyError(f"{origin}: {int(found[-1])} is too much; it can be {most} at most.")
    return tuple(int(value) for value in found)


def parse_numbers(text: str | float, origin: str, what: str = "number") -> tuple[float, ...]:
    """Numbers, none below 0, from '0..8 by 2', '0,1' or a number."""
    if isinstance(text, int | float):
        parts = [repr(text)]
    elif ".." in text:
        parts = _spread(text if " by " in text else f"{text} by 1", origin)
    else:
        parts = [part.strip() for part in text.split(",") if part.strip()]
    found = {_number(part, origin) for part in parts}
    if not found or min(found) < 0:
        raise PolicyError(f"{origin}: {text!r} is no {what}, and no range of them.")
    return tuple(sorted(found))


def matching(ranges: Table, name: str) -> tuple[str, str | float] | None:
    """The last line whose glob names this part, as (glob, value)."""
    found = None
    for glob, value in ranges.items():
        parts, wanted = name.split("."), glob.split(".")
        if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
            found = glob, value
    return found


def unmatched(ranges: Table, names: Iterable[str]) -> list[str]:
    """Globs that name no part at all: most likely a slip of the pen."""
    known = list(names)
    return [glob for glob in ranges if not any(matching({glob: 0}, name) for name in known)]


def _written(value: str | float) -> str:
    return files.to_toml(value) if isinstance(value, str) else repr(round(value, 9))


def _spread(text: str, origin: str) -> list[str]:
    ends, _, step = text.partition(" by ")
    low, _, high = (part.strip() for part in ends.partition(".."))
    start, stop = _number(low, origin), _number(high, origin)
    stride = _number(step, origin) if step.strip() else 0.05
    if stride <= 0 or stop < start:
        raise PolicyError(f"{origin}: '{text}' runs nowhere; write it like '-0.10..+0.10 by 0.05'.")
    count = int((stop - start) / stride + 1e-6) + 1
    if count > 1000:
        raise PolicyError(f"{origin}: '{text}' holds {count} levels; 1000 are the most.")
    sign = low[0] in "+-" or high[0] in "+-"
    return [f"{start + i * stride:{'+' if sign else ''}.9f}" for i in range(count)]


def _number(text: str, origin: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e6:
        raise PolicyError(
            f"{origin}: '{text}' is no level. Write '-0.10..+0.10 by 0.05' (around the ratio), "
            f"'0.4,0.5,0.6' or a number."
        )
    return value
