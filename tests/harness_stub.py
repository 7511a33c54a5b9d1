"""The parts of lmms-eval 0.7 that a model plug-in meets, written after its interface."""

import abc
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any


class CacheHook:
    def __init__(self) -> None:
        self.kept: list[tuple] = []

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        self.kept.append((kind, request, answer))


class lmms(abc.ABC):
    is_simple = True

    def __init__(self) -> None:
        self.cache_hook = CacheHook()
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional: dict[str, Any]):
        """`key=value,key=value`, and what the command line adds where it is not None."""
        given = dict(pair.split("=") for pair in arg_string.split(",") if pair)
        return cls(**given, **{key: one for key, one in additional.items() if one is not None})


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass
class Instance:
    args: tuple


def install(monkeypatch) -> None:
    """Puts the stub where lmms-eval would be."""
    parts = {
        "lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.models": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }  # fmt: skip
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "slimsearch.harness.model", raising=False)
