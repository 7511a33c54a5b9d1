"""The greedy loop: the most likely token, again and again, for several rows side by side.

Rows of different lengths are padded on the left, so that all end at the same place. A padded place
is masked and counts for no position; a row that has ended reads masked padding until all have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy import ndarray

from slimsearch.contracts import Session
from slimsearch.errors import InputError, LengthError
from slimsearch.routes.kinds import PICTURE, PROMPT, TEXT

Heard = Callable[[int, int], None]  # called with (row, token) for each token as it is said


@dataclass(frozen=True)
class Prompt:
    """Token ids, and what stands for the picture at the places that hold `picture_token`; or the
    picture itself, for an engine that reads whole prompts."""

    ids: Sequence[int]
    features: ndarray | None = None  # [tokens, width]
    picture_token: int = -1
    shown: Mapping[str, Any] | None = None  # inputs of the model, as its processor made them


def greedy(
    session: Session,
    prompts: Sequence[Prompt],
    ends: frozenset[int],
    most: int,
    heard: Heard = lambda row, token: None,
) -> list[list[int]]:
    """What each row says, at most `most` tokens, its end token included where it came."""
    return Reading(session).say(prompts, ends, most, heard)


def log_likelihoods(session: Session, prompt: Prompt, first: int) -> tuple[ndarray, bool]:
    """The log-probability of each token from the place `first` on (1 or more), given all before
    it; and whether each of them is the most likely one."""
    logits = Reading(session).follow(prompt, first).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    wanted = np.array(prompt.ids[first:])
    found = np.take_along_axis(logits, wanted[:, None], -1)[:, 0] - np.log(np.exp(logits).sum(-1))
    return found, bool((logits.argmax(-1) == wanted).all())


class Reading:
    """A session and what it holds, so that a further turn reads only what is new in it."""

    def __init__(self, session: Session):
        self._session = session
        self._mask = np.zeros((0, 0), np.int64)  # [rows, all places so far]
        self._held: list[list[int]] = []  # the real tokens of each row

    def say(
        self,
        prompts: Sequence[Prompt],
        ends: frozenset[int],
        most: int,
        heard: Heard = lambda row, token: None,
    ) -> list[list[int]]:
        """As `greedy`; prompts that begin with what is held are read from there on."""
        logits = self._read(prompts)
        most = min(most, self._session.room - self._mask.shape[1])
        said: list[list[int]] = [[] for _ in prompts]
        going = np.ones(len(prompts), np.int64)
        while True:
            tokens = logits.argmax(-1)
            for row in np.flatnonzero(going).tolist():
                said[row].append(int(tokens[row]))
                heard(row, said[row][-1])
                going[row] = said[row][-1] not in ends
            if not going.any() or max(map(len, said)) >= most:
                return said
            ids = np.where(going, tokens, 0)[:, None].astype(np.int64)
            said_now = (TEXT * going[:, None]).astype(np.uint8)
            logits = self._step(self._session.embed(ids), ids, going[:, None], said_now)

    def follow(self, prompt: Prompt, first: int) -> ndarray:
        """The logits before each token from the place `first` on, [tokens, vocabulary]."""
        _check_room(len(prompt.ids) - 1, self._session)
        logits = [self._read([replace(prompt, ids=prompt.ids[:first])])]
        if rest := list(prompt.ids[first:-1]):
            ids = np.array([rest], np.int64)
            positions = self._note(ids, np.ones_like(ids))
            embeds = self._session.embed(ids)
            self._session.tell(np.full_like(ids, TEXT, np.uint8))
            logits.append(self._session.step_all(embeds, self._mask, positions)[0])
        return np.concatenate(logits)

    def _read(self, prompts: Sequence[Prompt]) -> ndarray:
        """All that is new in the prompts in one step; the first logits."""
        lengths = [len(prompt.ids) for prompt in prompts]
        if not all(lengths):
            raise InputError("A prompt makes no tokens, so there is nothing to answer. Ask a word.")
        longest = max(lengths)
        known = [len(held) for held in self._held]
        pictures = [prompt.shown for prompt in prompts if prompt.shown is not None]
        begins = (
            not pictures
            and len(prompts) == len(known)
            and all(
                list(prompt.ids[: len(held)]) == held and len(prompt.ids) > len(held)
                for prompt, held in zip(prompts, self._held, strict=True)
            )
        )
        new = max(len(p.ids) - n for p, n in zip(prompts, known, strict=True)) if begins else 0
        if not begins or self._mask.shape[1] + new >= self._session.room:
            _check_room(longest, self._session)
            self._forget(len(prompts))
            known, new = [0] * len(prompts), longest
        ids = np.zeros((len(prompts), new), np.int64)
        mask = np.zeros_like(ids)
        for row, (prompt, start) in enumerate(zip(prompts, known, strict=True)):
            rest = prompt.ids[start:]
            ids[row, new - len(rest) :], mask[row, new - len(rest) :] = rest, 1
        shown = np.array([[prompt.picture_token] for prompt in prompts])
        kinds = np.where(ids == shown, PICTURE, PROMPT).astype(np.uint8) * mask.astype(np.uint8)
        if pictures:
            self._session.tell(kinds)
            return self._session.read(ids, mask, self._note(ids, mask), pictures)
        embeds = np.array(self._session.embed(ids))
        for row, prompt in enumerate(prompts):
            places = kinds[row] == PICTURE
            if prompt.features is not None and places.any():
                embeds[row, places] = prompt.features
        return self._step(embeds, ids, mask, kinds)

    def _step(self, embeds: ndarray, ids: ndarray, mask: ndarray, kinds: ndarray) -> ndarray:
        self._session.tell(kinds)
        positions = self._note(ids, mask)
        return self._session.step(embeds, self._mask, positions)

    def _note(self, ids: ndarray, mask: ndarray) -> ndarray:
        """Takes tokens as read; their positions."""
        self._mask = np.concatenate([self._mask, mask], axis=1)
        for held, row, real in zip(self._held, ids.tolist(), mask.tolist(), strict=True):
            held += [token for token, counts in zip(row, real, strict=True) if counts]
        return np.maximum(self._mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]

    def _forget(self, rows: int) -> None:
        self._session.forget()
        self._mask = np.zeros((rows, 0), np.int64)
        self._held = [[] for _ in range(rows)]


def _check_room(count: int, session: Session) -> None:
    """Refuses a prompt that leaves no room for an answer."""
    if count >= session.room:
        raise LengthError(
            f"The prompt makes {count} tokens and leaves no room for an answer: this model holds "
            f"{session.room} in all. Shorten it, or drop earlier turns. {session.wider}"
        )
