"""A run, export or model folder as a model of lmms-eval, in any of our runtimes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from PIL.Image import Image

from slimsearch import artefact
from slimsearch.api import generating
from slimsearch.api.generating import Talk
from slimsearch.errors import SettingsError, TaskError
from slimsearch.model import checkpoint, decoding

MARKER = "<image>"  # some tasks write it; the chat template has its own
MOST = 1024  # tokens of an answer where a task does not say, as lmms-eval's own models have it


class Slimsearch(lmms):
    """`pretrained` is a finished run, an export, a model folder, a hub id or 'demo'."""

    is_simple = True

    def __init__(
        self,
        pretrained: str = "demo",
        runtime: str = generating.AUTO,
        batch_size: int | str = 1,
        threads: int = 0,
        dtype: str = "",
        deepsparse_python: str = "",
        device_map: str = "",
        max_memory: str = "",
        device: str | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        place = artefact.champion(Path(pretrained)) or Path(pretrained)
        folder = place if place.is_dir() else checkpoint.find(pretrained).folder
        if not str(batch_size).isdigit():
            raise SettingsError(f"--batch_size {batch_size} cannot be: give a number.")
        self.batch_size = int(batch_size)
        choices = {
            "dtype": dtype, "deepsparse_python": deepsparse_python,
            "device_map": device_map, "max_memory": max_memory,
        }  # fmt: skip
        _, self._speaker = generating.open(folder, runtime, threads, choices)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy answers; requests with the same wishes are put side by side."""
        answers: dict[int, str] = {}
        alike: dict[tuple, list[int]] = {}
        for n, request in enumerate(requests):
            alike.setdefault(_wishes(request.args[1]), []).append(n)
        for (most, until), places in alike.items():
            for start in range(0, len(places), self.batch_size):
                some = places[start : start + self.batch_size]
                asked = [requests[n].args for n in some]
                talks = [self._talk(args[2], *args[3:6]) for args in asked]
                said = self._speaker.ask(talks, [_text(args[0]) for args in asked], most)
                for n, args, one in zip(some, asked, said, strict=True):
                    answers[n] = _cut(one.text, until)
                    self.cache_hook.add_partial("generate_until", args[:2], answers[n])
        return [answers[n] for n in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The log-probability of each continuation, and whether greedy decoding would say it."""
        found = []
        for request in requests:
            context, wanted, show, doc_id, task, split = request.args
            if not isinstance(wanted, str):
                wanted = wanted(self.task_dict[task][split][doc_id])
            talk = self._talk(show, doc_id, task, split)
            prompt, first = self._speaker.answered(talk, _text(context), wanted.strip())
            parts, greedy = decoding.log_likelihoods(self._speaker.session, prompt, first)
            found.append((float(parts.sum()), greedy))
            self.cache_hook.add_partial("loglikelihood", (context, wanted), found[-1])
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("slimsearch answers single rounds under lmms-eval.")

    def _talk(self, show: Any, doc_id: int, task: str, split: str) -> Talk:
        """A conversation about the one picture of a document, or about none."""
        shown = list(_flat(show(self.task_dict[task][split][doc_id]) if show else ()))
        if len(shown) > 1 or not all(isinstance(one, Image) for one in shown):
            raise TaskError(
                f"{task}, document {doc_id} shows {len(shown)} pictures or films; this model takes "
                f"one picture."
            )
        return Talk(shown[0] if shown else None, origin=f"{task}, document {doc_id}")


def _wishes(kwargs: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Most tokens, and what ends an answer."""
    if kwargs.get("do_sample") and kwargs.get("temperature"):
        warnings.warn("slimsearch decodes greedily; the task asks for samples.", stacklevel=2)
    until = kwargs.get("until") or ()
    ends = (until,) if isinstance(until, str) else tuple(until)
    return int(kwargs.get("max_new_tokens", MOST)), ends


def _cut(text: str, until: Iterable[str]) -> str:
    for end in until:
        if end:
            text = text.split(end)[0]
    return text.strip()


def _text(context: str) -> str:
    return context.replace(MARKER, "").strip()


def _flat(found: Any) -> Iterable[Any]:
    """Pictures of a list that may hold lists."""
    for one in found or ():
        if isinstance(one, list | tuple):
            yield from _flat(one)
        elif one is not None:
            yield one
