"""Asks a judge behind any OpenAI-compatible endpoint; grades are cached, failures tried again.

The only module that talks to a server of the user's: nothing is sent unless --judge names one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from math import inf
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from slimsearch.errors import ResourceError, RunError, SettingsError
from slimsearch.record import results

TRIES = 5
PATIENCE = 120.0  # seconds for one reply
PAUSE = 2.0  # seconds before the second try, doubled for each further one
LETTERS_A_TOKEN = 4  # of English text, roughly
REPLY_TOKENS = 400  # roughly, of a judge that explains itself
AGAIN = (408, 409, 429)  # and any 5xx

Verdict = Callable[[str], dict[str, float] | None]


@dataclass(frozen=True)
class Judge:
    url: str  # such as https://api.openai.com/v1
    model: str
    key_variable: str = "OPENAI_API_KEY"  # of the environment; a server of one's own needs none
    price: tuple[float, float] | None = None  # for a million tokens read and written

    def check(self) -> None:
        """Refuses what cannot be a judge, before a model is asked anything."""
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).netloc:
            raise SettingsError(
                f"--judge {self.url} is no address. Give one such as https://api.openai.com/v1."
            )
        if not self.model:
            raise SettingsError("Say with --judge-model which model is the judge.")
        if self.price is not None and not all(0 <= part < inf for part in self.price):
            raise SettingsError(
                f"--judge-price {self.price[0]:g},{self.price[1]:g} cannot be: prices are no less "
                f"than 0."
            )

    def estimate(self, cases: Sequence[str], cached: int) -> str:
        """What grading will take, for who pays for it."""
        read = sum(map(len, cases)) // LETTERS_A_TOKEN
        written = REPLY_TOKENS * len(cases)
        cost = "give --judge-price IN,OUT (for a million tokens) to see what that costs"
        if self.price is not None:
            money = (read * self.price[0] + written * self.price[1]) / 1e6
            cost = f"about {money:.2f} at {self.price[0]:g} and {self.price[1]:g} a million"
        return (
            f"{self.model} at {self.url} is asked {len(cases)} times ({cached} grades are cached): "
            f"about {read} tokens to read and up to {written} to write; {cost}."
        )

    def say(self, case: str, temperature: float) -> str:
        """The judge's reply; tried again where the server is busy or cannot be reached. Models that
        know one temperature alone are asked without any."""
        asked: dict[str, Any] = {
            "model": self.model, "temperature": temperature,
            "messages": [{"role": "user", "content": case}],
        }  # fmt: skip
        reason = ""
        for attempt in range(1, TRIES + 1):
            try:
                return self._posted(json.dumps(asked).encode())
            except HTTPError as error:
                reason = f"{error.code} {error.reason}: {error.read(300).decode(errors='replace')}"
                if error.code == 400 and "temperature" in asked and "temperature" in reason:
                    del asked["temperature"]
                    continue
                if error.code not in AGAIN and error.code < 500:
                    raise ResourceError(
                        f"The judge {self.url} refuses: {reason}. Check --judge, --judge-model and "
                        f"the key in {self.key_variable}. What was graded is kept."
                    ) from None
                wait = error.headers.get("Retry-After", "")
            except (URLError, TimeoutError, HTTPException, ConnectionError, ValueError) as error:
                reason, wait = str(error), ""
            if attempt < TRIES:
                time.sleep(float(wait) if wait.isdigit() else PAUSE * 2 ** (attempt - 1))
        raise ResourceError(
            f"The judge {self.url} did not answer in {TRIES} tries ({reason}). What was graded is "
            f"kept: start again to go on."
        )

    def _posted(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        with build_opener(_StayHere).open(request, timeout=PATIENCE) as reply:
            found = json.loads(reply.read())
        try:
            return str(found["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"no chat completion: {str(found)[:200]}") from None


class _StayHere(HTTPRedirectHandler):
    """Follows nobody: the key is for the address that the user named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Grades:
    """Replies by what was asked of whom, each on disk as soon as it came. One that holds no grade
    is asked for again by the next call."""

    def __init__(self, file: Path, judge: Judge):
        self._file, self._judge = file, judge
        results.cut_torn(file)
        try:
            self._kept = {entry["key"]: str(entry["reply"]) for entry in results.read_lines(file)}
        except (KeyError, TypeError):
            raise RunError(
                f"{file} holds lines that are no grades. Remove it: its grades are asked for again."
            ) from None

    def missing(self, cases: Sequence[str], verdict: Verdict) -> list[str]:
        return [case for case in cases if self._graded(case, verdict) is None]

    def of(self, case: str, verdict: Verdict) -> dict[str, float] | None:
        """The verdict on a case; a reply that cannot be read is asked for again, more freely."""
        if (graded := self._graded(case, verdict)) is not None:
            return graded
        key = self._key(case)
        reply, found = "", None
        for temperature in (0.0, 0.5, 1.0):
            reply = self._judge.say(case, temperature)
            if (found := verdict(reply)) is not None:
                break
        self._kept[key] = reply
        self._file.parent.mkdir(parents=True, exist_ok=True)
        results.append_lines(self._file, [self._entry(key, case, reply)])
        return found

    def _graded(self, case: str, verdict: Verdict) -> dict[str, float] | None:
        reply = self._kept.get(self._key(case))
        return None if reply is None else verdict(reply)

    def _key(self, case: str) -> str:
        return hashlib.sha256(f"{self._judge.model}\n{case}".encode()).hexdigest()

    def _entry(self, key: str, case: str, reply: str) -> dict[str, Any]:
        return {"key": key, "judge": self._judge.model, "case": case, "reply": reply}
