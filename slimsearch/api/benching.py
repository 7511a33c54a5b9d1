"""Times an export in every engine at hand, beside the dense model's, and says which one to use.

All engines stay open and take turns within one run, so that what else the machine does falls on
all alike; medians count, and ratios are of medians. Prompts are made of random tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import numpy as np

from slimsearch import artefact, plugins
from slimsearch.artefact import Artefact
from slimsearch.contracts import Runtime, Session
from slimsearch.drawing import Bar, Group, bars, svg
from slimsearch.errors import InputError, SlimsearchError
from slimsearch.model import loading
from slimsearch.searching.watch import Watch

SPARSE, UNIFORM, DENSE = "export", "uniform", "against"
COLOURS = {SPARSE: "blue", UNIFORM: "orange", DENSE: "grey"}
TORCH_DTYPES = ("float32", "bfloat16")


@dataclass
class Contestant:
    """One model in one engine."""

    model: str  # SPARSE, UNIFORM or DENSE
    engine: str
    session: Session
    vocabulary: int
    file_bytes: int
    ready: float = 0.0  # seconds from opening to the first tokens, compilation included
    memory: int = 0  # bytes that it added to our process, and its own process's
    warm: bool = False  # whether it has read a prompt
    prefill: dict[int, list[float]] = field(default_factory=dict)  # seconds, by prompt length
    first: dict[int, list[float]] = field(default_factory=dict)  # embeddings, prompt, one token
    decode: dict[int, list[float]] = field(default_factory=dict)  # seconds a token


@dataclass(frozen=True)
class Row:
    """What one model in one engine takes for one length of prompt; times are medians."""

    model: str
    engine: str
    prompt: int
    prefill_ms: float
    prefill_spread: float | None  # between the quartiles, over the median; None of one round
    first_token_ms: float
    first_token_spread: float | None
    decode_per_s: float
    decode_spread: float | None
    prefill_of_own_dense: float | None  # how many times as fast as the same engine dense
    decode_of_own_dense: float | None
    prefill_of_best_dense: float | None  # as the best dense engine of all
    decode_of_best_dense: float | None
    ready_s: float
    file_mib: float
    memory_mib: float


@dataclass(frozen=True)
class Result:
    rows: tuple[Row, ...]
    notes: tuple[str, ...]  # what was left out, and why
    verdict: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    export: Path,
    against: Path | None,
    prompts: Sequence[int],
    new_tokens: int,
    threads: int = 0,
    rounds: int = 5,
    choices: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    uniform: Path | None = None,
) -> Result:
    """Times every engine on every length of prompt; an engine that fails is left out and named.

    `uniform` is an export of the baseline, which stands between the two."""
    watch, notes = watch or Watch(), []
    given = {SPARSE: export, UNIFORM: uniform, DENSE: against}
    folders = {model: folder for model, folder in given.items() if folder}
    with ExitStack() as stack:
        with watch.stage("open"):
            contestants = list(_opened(folders, threads, choices or {}, notes, stack))
        if not contestants:
            raise InputError(f"No engine here runs {export}. {' '.join(notes)}")
        for length in sorted(set(prompts)):
            with watch.stage(f"prompts of {length} tokens", rounds) as advance:
                _time_length(contestants, length, new_tokens, rounds, notes, advance)
    rows = tuple(_rows(contestants))
    if not rows:
        raise InputError(f"No engine got through a prompt of {export}. {' '.join(notes)}")
    return Result(rows, tuple(notes), tuple(_verdict(rows)))


def draw(result: Result) -> str:
    """The rows as bars, a group for each phase and length, as SVG."""
    groups = []
    for length in sorted({row.prompt for row in result.rows}):
        rows = [row for row in result.rows if row.prompt == length]
        for title, value in (
            (
                f"prompt of {length} tokens, tokens a second",
                lambda row, length=length: length * 1e3 / row.prefill_ms,
            ),
            (f"decoding behind {length} tokens, tokens a second", lambda row: row.decode_per_s),
        ):
            drawn = [
                Bar(
                    f"{row.engine}, {row.model}",
                    value(row),
                    f"{value(row):.0f}",
                    COLOURS[row.model],
                )
                for row in sorted(rows, key=value, reverse=True)
            ]
            groups.append(Group(title, drawn))
    return svg(bars(groups))


def _opened(
    folders: Mapping[str, Path],
    threads: int,
    choices: Mapping[str, Any],
    notes: list[str],
    stack: ExitStack,
) -> Iterator[Contestant]:
    for model, folder in folders.items():
        found = artefact.find(folder)
        for name, dtype in _engines():
            engine: Runtime = plugins.make("runtimes", name, {**choices, "dtype": dtype})
            forms = [form for form in engine.forms if found.holds(form)]
            if not forms:
                continue
            if reason := engine.absent():
                notes.append(reason)
                continue
            before, began = _memory(os.getpid()), perf_counter()
            try:
                session = engine.open(folder, threads)
            except SlimsearchError as error:
                notes.append(f"{name}, {model}: {error}")
                continue
            stack.callback(session.close)
            one = Contestant(
                model, f"{name} {dtype or _calculates_in(found, forms[0])}", session,
                _vocabulary(found), _file_bytes(found, forms[0]),
            )  # fmt: skip
            one.ready, one.memory = perf_counter() - began, _memory(os.getpid()) - before
            yield one


def _time_length(
    contestants: list[Contestant],
    length: int,
    new_tokens: int,
    rounds: int,
    notes: list[str],
    advance: Callable[[], None],
) -> None:
    """Warms every engine up for this length, then lets them take turns; one that fails, even in
    the middle, is left out for this length."""
    running = [one for one in contestants if _warm(one, length, new_tokens, notes)]
    for _ in range(rounds):
        for one in list(running):
            try:
                prefill, first, decode = _pass(one, length, new_tokens)
            except SlimsearchError as error:
                notes.append(f"{one.engine}, {one.model}: {error}")
                running.remove(one)
                for times in (one.prefill, one.first, one.decode):
                    times.pop(length, None)
                continue
            one.prefill.setdefault(length, []).append(prefill)
            one.first.setdefault(length, []).append(first)
            one.decode.setdefault(length, []).append(decode)
        advance()


def _warm(one: Contestant, length: int, new_tokens: int, notes: list[str]) -> bool:
    """Whether an engine reads so much; the first time it is also asked what it took to be ready."""
    if length + new_tokens > one.session.room:
        notes.append(
            f"{one.engine}, {one.model}: {length} + {new_tokens} tokens are more than its "
            f"{one.session.room}."
        )
        return False
    began, before = perf_counter(), _memory(os.getpid())
    try:
        _pass(one, length, 2)
    except SlimsearchError as error:
        notes.append(f"{one.engine}, {one.model}: {error}")
        return False
    if not one.warm:
        one.ready += perf_counter() - began
        one.memory += _memory(os.getpid()) - before + _memory(one.session.process)
        one.warm = True
    return True


def _pass(one: Contestant, length: int, new_tokens: int) -> tuple[float, float, float]:
    """Seconds of the prompt, of everything up to the first token, and of each further one."""
    session = one.session
    ids = np.random.default_rng(length).integers(0, one.vocabulary, (1, length))
    session.forget()
    began = perf_counter()
    embeds = session.embed(ids)
    read = perf_counter()
    token = session.step(embeds, np.ones((1, length), np.int64), np.arange(length)[None]).argmax(-1)
    first = perf_counter()
    for place in range(length, length + new_tokens):
        mask = np.ones((1, place + 1), np.int64)
        token = session.step(session.embed(token[None]), mask, np.array([[place]])).argmax(-1)
    return first - read, first - began, (perf_counter() - first) / new_tokens


def _rows(contestants: Sequence[Contestant]) -> Iterator[Row]:
    lengths = sorted({length for one in contestants for length in one.prefill})
    for length in lengths:
        dense = {
            one.engine: (median(one.prefill[length]), median(one.decode[length]))
            for one in contestants
            if one.model == DENSE and length in one.prefill
        }
        best = [min(times) for times in zip(*dense.values(), strict=True)]
        for one in contestants:
            if length not in one.prefill:
                continue
            prefill, decode = median(one.prefill[length]), median(one.decode[length])
            own = dense.get(one.engine)
            yield Row(
                one.model, one.engine, length,
                prefill * 1e3, _spread(one.prefill[length]),
                median(one.first[length]) * 1e3, _spread(one.first[length]),
                1 / decode, _spread(one.decode[length]),
                own and own[0] / prefill, own and own[1] / decode,
                best[0] / prefill if best else None, best[1] / decode if best else None,
                one.ready, one.file_bytes / 2**20, one.memory / 2**20,
            )  # fmt: skip


def _verdict(rows: Sequence[Row]) -> Iterator[str]:
    """For each length and phase which engine is the fastest, and whether zeros paid."""
    for length in sorted({row.prompt for row in rows}):
        for phase in ("prefill", "decode"):
            mine = [row for row in rows if row.prompt == length and row.model != UNIFORM]

            def seconds(row: Row, phase: str = phase) -> float:
                return row.prefill_ms / 1e3 if phase == "prefill" else 1 / row.decode_per_s

            best = min(mine, key=seconds)
            line = f"{phase}, {length} tokens: use {best.engine} on {best.model}"
            ours, theirs = (
                min((row for row in mine if row.model == model), key=seconds, default=None)
                for model in (SPARSE, DENSE)
            )
            if ours is None or theirs is None:
                yield f"{line}."
                continue
            ratio = seconds(theirs) / seconds(ours)
            spreads = [getattr(row, f"{phase}_spread") for row in (ours, theirs)]
            yield (
                f"{line}; the export at its best ({ours.engine}) is {ratio:.2f} times as fast as "
                f"the dense model at its best ({theirs.engine}), {_said(ratio, spreads)}."
            )


def _said(ratio: float, spreads: Sequence[float | None]) -> str:
    """What a ratio of speeds proves beside the spreads of both."""
    known = [spread for spread in spreads if spread is not None]
    if len(known) < len(spreads):
        return "which one round does not prove"
    if max(ratio, 1 / ratio) <= 1 + max(known):
        return f"so neither faster nor slower within their spread of {max(known):.0%}"
    return f"so {'faster' if ratio > 1 else 'slower'}"


def _spread(seconds: Sequence[float]) -> float | None:
    if len(seconds) < 2:
        return None
    low, middle, high = quantiles(seconds, n=4)
    return (high - low) / middle


def _engines() -> Iterator[tuple[str, str]]:
    """Every runtime, torch in both dtypes; what the others calculate in lies in the export."""
    for name in plugins.names("runtimes"):
        yield from ((name, dtype) for dtype in (TORCH_DTYPES if name == "torch" else ("",)))


def _calculates_in(found: Artefact, form: str) -> str:
    recorded = found.recorded(form)
    return "int8" if recorded.get("int8") else str(recorded.get("dtype", "float32"))


def _vocabulary(found: Artefact) -> int:
    return loading.config_of(found.checkpoint).get_text_config().vocab_size


def _file_bytes(found: Artefact, form: str) -> int:
    if form == "hf":
        shards = {found.folder / name for name in found.checkpoint.shards.values()}
    else:
        shards = {file for file in (found.folder / form).rglob("*") if file.is_file()}
    return sum(file.stat().st_size for file in shards)


def _memory(process: int | None) -> int:
    """Resident bytes of a process; 0 where there is none or it cannot be read."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
