"""From settings to live objects: the only place that knows plug-ins by name.

What the user gave is read and checked first, cheapest first: settings, policy, model folder, text,
pictures. Only then is a model loaded.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
import transformers

from slimsearch import (
    calibration,
    checkpoint,
    conversation,
    objective,
    plugins,
    shelf,
    space,
    vlm,
)
from slimsearch import policy as policies
from slimsearch.calibration import Material
from slimsearch.checkpoint import Checkpoint
from slimsearch.contracts import (
    Executor,
    Exporter,
    Family,
    Solver,
    Strategy,
    Task,
    Term,
)
from slimsearch.conversation import Speech
from slimsearch.evaluate import Evaluator
from slimsearch.level_store import LevelStore
from slimsearch.loop import Loop
from slimsearch.policy import PolicyFile
from slimsearch.projector import ProjectorTrainer
from slimsearch.settings import Settings, as_dict
from slimsearch.version import __version__
from slimsearch.vlm import VLM, Calibrated
from slimsearch.watch import Watch

TASKS = ("perplexity", "pairs")
PAIR_TOKENS = 1024  # a batch of pairs: small, so that the projector step has several to draw from


@dataclass(frozen=True)
class Given:
    """Everything that a run reads, found and checked; no model is in memory yet."""

    settings: Settings
    checkpoint: Checkpoint
    policy: PolicyFile
    material: Material
    speech: Speech
    segments: torch.Tensor  # [count, length]
    held_segments: torch.Tensor


@dataclass(frozen=True)
class Bench:
    """A loaded model with everything that a search of it needs."""

    given: Given
    loop: Loop
    held_out: Calibrated
    tasks: Mapping[str, Task]
    exporter: Exporter


def gather(settings: Settings) -> Given:
    """Finds and checks every input; raises before anything heavy happens."""
    for kind, name in (
        ("solvers", settings.solver),
        ("strategies", settings.strategy),
        ("executors", settings.executor),
    ):
        plugins.find(kind, name)
    objective.weights(settings, pairs=True)
    policy = policies.read(shelf.find("policies", settings.policy))
    for family, table in policy.tables.items():
        plugins.find("families", family)
        for key, value in table.items():
            policies.parse_levels(value, settings.ratio, f"{policy.file}, [{family}] '{key}'")
    if settings.levels:
        policies.parse_levels(settings.levels, settings.ratio, "--levels")
    vlm.pick_device(settings.device)
    found = checkpoint.find(settings.model)
    architecture = vlm.architecture_of(found)
    sees = architecture.projector is not None
    material = calibration.gather(settings if sees else _without_pairs(settings))
    speech = conversation.load(found, sees)
    held = material.held_text
    return Given(
        settings,
        found,
        policy,
        material,
        speech,
        _segments(speech, material.text, material, material.segments, settings.seed),
        _segments(speech, held, material, material.held_segments, settings.seed),
    )


def load(given: Given, watch: Watch) -> Bench:
    """Loads the model and builds everything around it."""
    settings, material = given.settings, given.material
    with watch.stage("load"):
        model = vlm.load(given.checkpoint, settings.device, settings.dtype)
        texts = conversation.text_batches(given.segments, model.device, settings.batch_tokens)
        held_texts = conversation.text_batches(
            given.held_segments, model.device, settings.batch_tokens
        )
        pairs, held_pairs = (
            conversation.pair_batches(model, given.speech, some, PAIR_TOKENS) if some else []
            for some in (material.pairs, material.held_pairs)
        )
    paper = settings.objective == "paper"
    calibrated = Calibrated(tuple(texts), () if paper else tuple(pairs))
    for note in (*material.notes, *_notes(settings, model, bool(pairs))):
        watch.note(note)
    loop = _loop(given, model, calibrated)
    held_out = Calibrated(tuple(held_texts), tuple(held_pairs))
    tasks: dict[str, Task] = {name: plugins.find("tasks", name)() for name in TASKS}
    return Bench(given, loop, held_out, tasks, plugins.find("exporters", "hf")())


def fingerprint(given: Given) -> dict[str, Any]:
    """What a resumed run must find unchanged."""
    return {
        "model": given.checkpoint.fingerprint(),
        "calibration": given.material.fingerprint(),
        "policy": {name: dict(table) for name, table in given.policy.tables.items()},
        "settings": {
            key: value for key, value in as_dict(given.settings).items()
            if key not in ("out", "json", "dry_run", "model", "policy")
        },
        "versions": {
            "slimsearch": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "device": vlm.pick_device(given.settings.device).type,
    }  # fmt: skip


def facts(bench: Bench, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What an exported folder records about where it came from."""
    settings, evaluator = bench.given.settings, bench.loop.evaluator
    return {
        "slimsearch": __version__,
        "base": settings.model,
        "ratio": settings.ratio,
        "sparsity": evaluator.store.sparsity(evaluator.vlm),
        "solver": settings.solver,
        "calibration": bench.given.material.recipe,
        "matrices": evaluator.store.sparsities(evaluator.vlm),
        "fingerprint": fingerprint,
    }


def make(kind: str, name: str, settings: Settings) -> Any:
    """A plug-in; the fields of a dataclass that are named like settings get their values."""
    found = plugins.find(kind, name)
    if not is_dataclass(found):
        return found()
    known = as_dict(settings)
    return found(**{f.name: known[f.name] for f in fields(found) if f.name in known})


def _loop(given: Given, model: VLM, calibrated: Calibrated) -> Loop:
    settings = given.settings
    families: dict[str, Family] = {
        name: make("families", name, settings) for name in given.policy.tables
    }
    found = space.build(given.policy, families, model.matrices, settings.ratio, settings.levels)
    if given.policy.fixed:  # nothing to choose: the policy's own share is the ratio
        settings = replace(settings, ratio=found.budget.reach()[0], strategy="uniform")
        found = replace(found, budget=replace(found.budget, target=settings.ratio))
    found.budget.check()
    weights = objective.weights(settings, pairs=bool(calibrated.pairs))
    terms: dict[str, Term] = {name: make("objectives", name, settings) for name in weights}
    solver: Solver = make("solvers", settings.solver, settings)
    executor: Executor = make("executors", settings.executor, settings)
    strategy: type[Strategy] = plugins.find("strategies", settings.strategy)
    evaluator = Evaluator(model, LevelStore(model), calibrated, families, terms, weights)
    trainer = None
    if calibrated.pairs and settings.projector_steps:
        trainer = ProjectorTrainer(model, calibrated.pairs, settings.projector_rate)
    return Loop(
        settings=settings,
        space=found,
        evaluator=evaluator,
        hessian_batches=calibrated.all,
        tokens=settings.tokens,
        solver=solver,
        strategy=strategy(found.budget, settings.candidates, settings.survivors, settings.seed),
        executor=executor,
        trainer=trainer if trainer is not None and trainer.possible else None,
    )


def _segments(speech: Speech, text: str, material: Material, count: int, seed: int) -> torch.Tensor:
    """Segments drawn from a text; none where the text is empty or count is 0."""
    if not text or not count:
        return torch.empty(0, material.segment_length, dtype=torch.int64)
    drawn = calibration.draw_segments(
        speech.tokens(text), count, material.segment_length, seed, material.recipe
    )
    return torch.from_numpy(drawn)


def _without_pairs(settings: Settings) -> Settings:
    return replace(settings, pairs="none")


def _notes(settings: Settings, model: VLM, pairs: bool) -> list[str]:
    """What the user should know about this combination of model and settings."""
    if model.projector is None:
        return ["A text-only model: it has no projector, so the projector step is skipped."]
    if settings.objective == "paper":
        return ["Objective 'paper' is text only: it gives the projector no gradient, so the "
                "projector step is skipped."]  # fmt: skip
    if not pairs:
        return ["No image-text pairs: the projector step is skipped and pictures are not "
                "calibrated on. Give some with --pairs."]  # fmt: skip
    return []
