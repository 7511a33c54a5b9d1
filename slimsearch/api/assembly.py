"""From settings to live objects: the only place that makes plug-ins by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from slimsearch import plugins
from slimsearch.api.inputs import Given
from slimsearch.calibration import Pair
from slimsearch.contracts import Executor, Exporter, Family, Solver, Strategy, Task, Term
from slimsearch.errors import ModelError
from slimsearch.model import conversation, placing
from slimsearch.model.batch import Batch, Calibrated
from slimsearch.model.vlm import VLM
from slimsearch.policy import SPARSITY
from slimsearch.searching import budgeting, objective, race, space
from slimsearch.searching.evaluate import Evaluator
from slimsearch.searching.parts import Loop
from slimsearch.searching.space import Space
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings, as_dict, polish_of, strategy_of
from slimsearch.surgery import level_store
from slimsearch.surgery.exact import ExactStore
from slimsearch.surgery.level_store import LevelStore
from slimsearch.teaching import lessons
from slimsearch.teaching.training import Trainer
from slimsearch.version import __version__

TASKS = ("perplexity", "pairs")
PAIR_TOKENS = 1024  # a batch of pairs: small, so that the projector step has several to draw from


@dataclass(frozen=True)
class Bench:
    """A loaded model with everything that a search of it needs."""

    given: Given
    loop: Loop
    held_out: Calibrated
    tasks: Mapping[str, Task]
    exporters: Mapping[str, Exporter]


def load(given: Given, watch: Watch, noted: Mapping[str, Any] | None = None) -> Bench:
    """Loads the model and builds everything around it; `noted` is what a budget measured of the
    machine when the run began."""
    settings = given.settings
    for note in given.notes:
        watch.note(note)
    with watch.stage("load"):
        model = placing.load(given.checkpoint, settings, watch.note)
        if model.sight is not None:
            model.sight.notes_salience = "merge_tokens" in given.policy.tables
        calibrated = calibrate(given, model)
        held_out = Calibrated(
            _texts(given, model, given.held_segments),
            _pairs(given, model, given.material.held_pairs),
        )
    tasks: dict[str, Task] = {name: plugins.find("tasks", name)() for name in TASKS}
    loop = _loop(given, model, calibrated, watch, noted)
    if calibrated.pairs and settings.projector_steps and loop.trainer is None:
        watch.note("There are too few pairs to hold some back: the projector step is skipped.")
    return Bench(given, loop, held_out, tasks, {"hf": plugins.find("exporters", "hf")()})


def calibrate(given: Given, model: VLM) -> Calibrated:
    """The calibration as batches; objective 'paper' is text only."""
    _check_vocabulary(given, model)
    pairs = () if given.settings.objective == "paper" else given.material.pairs
    also: list[Batch] = []
    for more, segments in zip(given.material.also, given.also_segments, strict=True):
        also += _texts(given, model, segments, more.name)
        also += _pairs(given, model, more.pairs, more.name)
    return Calibrated(
        _texts(given, model, given.segments), _pairs(given, model, pairs), tuple(also)
    )


def facts(given: Given, sparsities: Mapping[str, float], vlm: VLM) -> dict[str, Any]:
    """What an exported folder records about where it came from; sparsity by matrix is counted."""
    total = sum(matrix.size for matrix in vlm.matrices)
    removed = sum(sparsities[matrix.name] * matrix.size for matrix in vlm.matrices)
    return {
        "slimsearch": __version__,
        "base": given.settings.model,
        **vlm.facts,
        "ratio": given.settings.ratio,
        "sparsity": removed / total,
        "solver": given.settings.solver,
        "calibration": given.material.recipe,
        "matrices": dict(sparsities),
        "fingerprint": given.fingerprint,
    }


def scope(bench: Bench) -> dict[str, Any]:
    """What a search has before it: parts, choices, the weights of terms, and data, counted."""
    loop, vlm = bench.loop, bench.loop.evaluator.vlm
    calibrated, held_out = loop.evaluator.calibrated, bench.held_out
    return {
        "parameters": sum(weight.numel() for weight in vlm.model.parameters()),
        "bytes_each": vlm.disk_dtype.itemsize,
        "matrices": [[m.name, m.rows, m.columns] for m in vlm.matrices],
        "genes": [[gene.family, gene.key, list(gene.choices)] for gene in loop.space.genes],
        "terms": dict(loop.evaluator.weights),
        "calibration": {"texts": _counted(calibrated.texts), "pairs": _counted(calibrated.pairs)},
        "held_out": {"texts": _counted(held_out.texts), "pairs": _counted(held_out.pairs)},
        "notes": list(bench.given.notes),
    }


def make(kind: str, name: str, settings: Settings) -> Any:
    """A plug-in; the fields of a dataclass that are named like settings get their values."""
    return plugins.make(kind, name, as_dict(settings))


def span(given: Given, model: VLM) -> tuple[dict[str, Family], Space]:
    """The families that the policy names, and the space that it spans over the model."""
    settings = given.settings
    families: dict[str, Family] = {
        name: make("families", name, settings) for name in given.policy.tables
    }
    return families, space.build(
        given.policy, families, model.body, settings.ratio, settings.levels
    )


def _loop(
    given: Given, model: VLM, calibrated: Calibrated, watch: Watch, noted: Mapping[str, Any] | None
) -> Loop:
    settings = given.settings
    families, found = span(given, model)
    found = budgeting.budgeted(found, families, settings, model, calibrated.pairs, noted)
    if found.single or (found.settled and settings.budget == "weights"):
        settings = replace(settings, ratio=round(found.budget.reach()[0], 9))
        found = replace(found, budget=replace(found.budget, target=settings.ratio))
    if found.single:
        settings = replace(settings, strategy="uniform")
    weights = objective.weights(settings, pairs=bool(calibrated.pairs))
    terms: dict[str, Term] = {name: make("objectives", name, settings) for name in weights}
    solver: Solver = make("solvers", settings.solver, settings)
    executor: Executor = make("executors", settings.executor, settings)
    strategy: type[Strategy] = plugins.find("strategies", strategy_of(settings))
    if strategy.weighs_terms and any(term.is_cost for term in terms.values()):
        found = replace(found, budget=replace(found.budget, held=False))
    found.budget.check()
    where = _where(settings, model, families, found)
    if settings.exact:
        store: LevelStore = ExactStore(
            model, calibrated.all, solver, settings.tokens, settings.true_sequential, where
        )
    else:
        store = LevelStore(model, where)
    shares = (1.0,) if settings.exact or strategy.weighs_terms else race.rungs(settings.racing)
    evaluator = Evaluator(model, store, calibrated, families, terms, weights, shares)
    with watch.stage("lessons"):
        pairs, texts = _subjects(settings, model, calibrated)
    rates = dict.fromkeys(model.projector_parameters, settings.projector_rate)
    trains = bool(rates and pairs.possible and settings.projector_steps)
    return Loop(
        settings=settings,
        space=found,
        evaluator=evaluator,
        hessian_batches=calibrated.all,
        tokens=settings.tokens,
        fingerprint=lambda: _store_fingerprint(given, model),
        solver=solver,
        strategy=strategy(found.budget, settings.candidates, settings.survivors, settings.seed),
        executor=executor,
        trainer=Trainer(model, rates, [pairs]) if trains else None,
        pairs=pairs,
        texts=texts,
    )


def _where(settings: Settings, model: VLM, families: Mapping[str, Family], found: Space) -> str:
    """Where the level store is held: by itself, on a GPU only if it leaves half of it free."""
    if settings.store_in != "auto" or model.device.type != "cuda":
        return "disk" if settings.store_in == "auto" else settings.store_in
    needed = sum(matrix.size for matrix in model.matrices) * model.dtype.itemsize
    if SPARSITY in families and not settings.exact:
        levels = found.levels(families[SPARSITY], model.body)
        needed += level_store.expected_bytes(model, levels)
    return "gpu" if needed < torch.cuda.mem_get_info(model.device)[0] / 2 else "disk"


def _subjects(
    settings: Settings, model: VLM, calibrated: Calibrated
) -> tuple[lessons.Subject, lessons.Subject]:
    """What is learnt from pairs and from texts, each empty where nothing asks for it."""
    dense = model if settings.projector_lessons == "dense" else None  # not pruned yet
    wanted = polish_of(settings, sum(matrix.size for matrix in model.matrices))
    more = settings.final_steps and wanted in ("gains", "all")  # than the projector
    asked = calibrated.pairs if more or settings.projector_steps else ()
    return (
        lessons.subject(asked, dense, settings.other_pictures),
        lessons.subject(calibrated.texts if more else (), dense),
    )


def _store_fingerprint(given: Given, model: VLM) -> dict[str, Any]:
    """Everything that a level store follows from, apart from its levels."""
    chosen = as_dict(given.settings)
    keys = (
        "segments", "segment_length", "seed", "objective", "tokens", "solver", "damping", "keep",
        "reference_count", "batch_tokens",
    )  # fmt: skip
    whole = given.fingerprint
    return {
        **{key: whole[key] for key in ("model", "calibration", "versions", "device")},
        "settings": {key: chosen[key] for key in keys},
        "dtypes": [str(dtype) for dtype in model.dtypes],
    }


def _texts(given: Given, model: VLM, segments: Tensor, source: str = "text") -> tuple[Batch, ...]:
    most = given.settings.batch_tokens
    return tuple(conversation.text_batches(segments, model.device, most, source))


def _pairs(
    given: Given, model: VLM, pairs: Sequence[Pair], source: str = "pairs"
) -> tuple[Batch, ...]:
    return tuple(conversation.pair_batches(model, given.speech, pairs, PAIR_TOKENS, source))


def _check_vocabulary(given: Given, model: VLM) -> None:
    """Refuses a tokenizer that gives ids beyond the model's embeddings."""
    known = model.model.get_input_embeddings().weight.shape[0]
    highest = int(given.segments.max())
    if highest >= known:
        raise ModelError(
            f"{given.checkpoint.folder}: its tokenizer gives id {highest}, its model knows {known} "
            f"tokens. They do not belong together; fetch both again."
        )


def _counted(batches: Sequence[Batch]) -> dict[str, int]:
    """Rows, tokens and answers of some batches."""
    return {
        "rows": sum(len(batch.ids) for batch in batches),
        "tokens": sum(batch.tokens for batch in batches),
        "answers": sum(len(set(row) - {-1}) for batch in batches for row in batch.turns.tolist()),
    }
