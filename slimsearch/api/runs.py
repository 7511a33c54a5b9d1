"""A whole run as one call: `search(Settings(...))` and `resume(folder)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor

from slimsearch import artefact, files, footprint, policy, settings
from slimsearch.api import assembly, inputs
from slimsearch.api.assembly import Bench
from slimsearch.api.inputs import Given
from slimsearch.calibration import also_names
from slimsearch.errors import (
    InputError,
    ModelError,
    RunError,
    SettingsError,
    SolverError,
)
from slimsearch.model.vlm import VLM
from slimsearch.policy import SPARSITY, Policy
from slimsearch.record import changes, history, run
from slimsearch.record.candidate import Round, Row
from slimsearch.record.history import SETTINGS
from slimsearch.record.run import Run
from slimsearch.searching import budgeting, fronts, polishing, repruning, samples
from slimsearch.searching.crown import Champion, crown
from slimsearch.searching.examine import Examiner
from slimsearch.searching.loop import play
from slimsearch.searching.watch import Watch
from slimsearch.settings import DEMO, Settings


@dataclass(frozen=True)
class Result:
    """What a run found. `table` compares models on data that was not calibrated on."""

    folder: Path
    policy: Policy
    total: float
    terms: dict[str, float]
    sparsity: float
    correlation: float | None  # rank correlation of stitched and exact totals of the finalists
    finalists: int  # that were pruned exactly
    table: tuple[Row, ...]
    rounds: tuple[Round, ...]
    seconds: dict[str, float]  # by stage
    drift: tuple[str, ...] = ()  # what had changed when the run was resumed all the same

    @property
    def model(self) -> Path:
        """The pruned model as a Hugging Face folder."""
        return self.folder / "model"

    def as_dict(self) -> dict[str, Any]:
        facts = asdict(self)
        facts |= {"folder": str(self.folder), "model": str(self.model)}
        facts["policy"] = self.policy.tables
        del facts["rounds"]
        return facts


def search(chosen: Settings, watch: Watch | None = None) -> Result:
    """Searches as the settings say, in a new run folder."""
    watch = watch or Watch()
    settings.checked(chosen)
    folder = Path(chosen.out) if chosen.out else free_folder(chosen)
    chosen = anchored(chosen)
    run.check_free(folder)
    given = inputs.gather(chosen)
    with run.create(folder, chosen, given.fingerprint) as opened:
        try:
            return _carry_out(assembly.load(given, watch), opened, watch)
        except (InputError, SettingsError):
            if not opened.begun:
                opened.discard()
            raise


def resume(
    folder: Path | str,
    watch: Watch | None = None,
    *,
    allow_drift: bool = False,
    where: Mapping[str, Any] | None = None,
) -> Result:
    """Goes on with a search that was interrupted, to the same end as an unbroken one.

    `allow_drift` goes on under other conditions too, and says so in all that is written. `where`
    are settings of where candidates are scored from here on: `executor` and those of Ray.
    """
    watch, folder = watch or Watch(), Path(folder)
    with run.reopen(folder) as opened:
        if opened.history.end:
            _check_finished(opened)
            raise RunError(f"{folder} is finished. Its champion is {folder / 'best.toml'}.")
        if opened.torn:
            watch.note(f"The journal's last line was cut off; its {opened.torn} bytes are dropped.")
        given = _given_again(opened, where or {})
        before, now = opened.history.fingerprint, given.fingerprint
        differences = changes.between(before, now, but=settings.WHERE)  # older runs have some
        if differences and not allow_drift:
            raise RunError(
                f"{folder} was begun under other conditions and would not end the same: "
                f"{'; '.join(differences)}. Restore them (settings stand in "
                f"{folder / 'settings.toml'}), start a new run, or go on all the same with "
                f"--allow-drift, which marks the result."
            )
        if differences:
            afresh = any(not line.startswith(("versions.", "device ")) for line in differences)
            opened.add_drift(differences, given.fingerprint, afresh)
        for line in opened.history.drift:
            watch.note(f"Drift: {line}.")
        return _carry_out(assembly.load(given, watch, opened.budgeted), opened, watch)


def _check_finished(opened: Run) -> None:
    """Refuses a finished run that is no longer as it was left; its level store may be gone."""
    opened.history.check_written("")
    if opened.levels.is_dir() and (trouble := opened.wrong_levels(opened.levels)):
        raise RunError(
            f"{trouble}. Restore it, or remove {opened.levels}: a finished run needs it no more."
        )
    begun, now = opened.history.fingerprint["settings"], settings.as_dict(_chosen(opened))
    differences = changes.between(begun, {key: now[key] for key in begun}, but=inputs.ELSEWHERE)
    if differences:
        raise RunError(
            f"{opened.folder / SETTINGS} is not what this run was made with: "
            f"{'; '.join(differences)}. Restore it."
        )


def _given_again(opened: Run, where: Mapping[str, Any]) -> Given:
    """What a run reads, found once more."""
    chosen = _moved(_chosen(opened), where)
    try:
        return inputs.gather(chosen)
    except InputError as error:
        raise type(error)(f"{error} So says {opened.folder / SETTINGS}.") from error


def _chosen(opened: Run) -> Settings:
    begun = opened.history.fingerprint.get("settings", ())
    needed = {*begun, "model", "policy", "calibration", "pairs"}
    return settings.read(opened.folder / SETTINGS, needed)


def free_folder(chosen: Settings) -> Path:
    """runs/<model>-<ratio>-<seed>, numbered on while that is taken."""
    name = "demo" if chosen.model == DEMO else Path(chosen.model).name
    return files.free_folder(Path("runs") / f"{name}-{chosen.ratio:g}-{chosen.seed}")


def anchored(chosen: Settings) -> Settings:
    """Local paths made absolute, so that the run can be resumed from any folder."""
    found: dict[str, str] = {
        key: _absolute(getattr(chosen, key), on_shelf=key in ("policy", "calibration"))
        for key in ("model", "policy", "calibration", "pairs")
    }
    also = ",".join(_absolute(name, on_shelf=True) for name in also_names(chosen))
    return replace(chosen, **found, also=also)


def _moved(chosen: Settings, where: Mapping[str, Any]) -> Settings:
    """The same search, its candidates scored elsewhere."""
    if fixed := sorted(where.keys() - set(settings.WHERE)):
        raise SettingsError(f"A resumed run keeps its {fixed[0]}; begin a new one to change it.")
    return settings.change(chosen, dict(where), "the command line")


def _absolute(given: str, on_shelf: bool) -> str:
    """A path that is there, as an absolute one; a name stays as it is."""
    path = Path(given).expanduser()
    named = on_shelf and path.name == path.stem == str(path)
    local = str(path) not in (DEMO, "auto", "none") and not named and path.exists()
    return str(path.resolve()) if local else given


def _carry_out(bench: Bench, opened: Run, watch: Watch) -> Result:
    """The run itself. The table's last row is the model that is exported."""
    loop, vlm = bench.loop, bench.loop.evaluator.vlm
    original = vlm.weights()
    opened.settle(loop.evaluator.terms, vlm, budgeting.times(loop.space))
    if opened.history.scope is None:
        opened.add_scope(assembly.scope(bench))
    examiner = Examiner(loop, bench.tasks, bench.held_out, watch, opened)
    examiner.examine("dense")
    _check_sane(bench, examiner.rows[0])
    with closing(loop.executor):
        position = play(loop, opened, watch)
        champion = crown(loop, opened, watch, position)
    moved = vlm.weights()
    vlm.set_weights(original)
    if not loop.settings.skip_baselines:
        with watch.stage("baselines"):
            _compare(bench, champion, examiner, watch)
    vlm.set_weights(moved)
    champion.put_on(loop)
    polished = polishing.polish(loop, opened, watch)
    examiner.examine(" + ".join(["searched", *polishing.tuned(loop)]))
    facts = _facts(bench, champion, examiner)
    if opened.history.drift:
        facts["drift"] = opened.history.drift
    with watch.stage("export"):
        files.remove(opened.folder / "model")  # of a crash before the run's last line
        artefact.write(vlm, opened.folder / "model", facts, bench.exporters)
        opened.save_best(_best(bench, champion, examiner))
        if champion.front:
            policies = {s.candidate: loop.space.decode(s.genes) for s in champion.front}
            fronts.write(opened.folder / "front", champion.front, policies, champion.score)
    if bench.held_out.pairs and not loop.settings.skip_baselines:
        with watch.stage("samples"):
            _take_samples(bench, champion, original, polished, opened)
    opened.add_end(facts)
    for name, spent in watch.seconds.items():
        opened.add_time("stage", name, spent)
    opened.add_machine(*_cost(vlm))
    return Result(
        folder=opened.folder,
        policy=champion.policy,
        total=champion.score.total,
        terms=champion.score.terms,
        sparsity=facts["sparsity"],
        correlation=champion.correlation,
        finalists=len(champion.finalists),
        table=tuple(examiner.rows),
        rounds=tuple(history.read(opened.folder).rounds.values()),
        seconds=dict(watch.seconds),
        drift=tuple(opened.history.drift),
    )


def _take_samples(
    bench: Bench,
    champion: Champion,
    original: Mapping[str, Tensor],
    polished: Mapping[str, Tensor],
    opened: Run,
) -> None:
    """Keeps some answers of the dense model beside the champion's."""
    if opened.history.samples is not None:
        return
    evaluator = bench.loop.evaluator
    vlm = evaluator.vlm

    def put_on_dense() -> None:
        evaluator.restore()
        vlm.set_weights(original)

    def put_on_champion() -> None:
        champion.put_on(bench.loop)
        vlm.set_weights(polished)

    put_on = {"dense": put_on_dense, "pruned": put_on_champion}
    pairs, batches = bench.given.material.held_pairs, bench.held_out.pairs
    found = samples.take(vlm, bench.given.speech, pairs, batches, put_on, opened.samples)
    opened.add_samples(found)


def _cost(vlm: VLM) -> tuple[str, int]:
    return footprint.machine(vlm.device.type), footprint.peak_bytes(vlm.device.type)


def _compare(bench: Bench, champion: Champion, examiner: Examiner, watch: Watch) -> None:
    """The rows to hold the champion against, under the original projector."""
    loop = bench.loop
    solver = loop.settings.solver
    rows: dict[str, Callable[[], object]] = {}
    if SPARSITY in loop.evaluator.families:
        if loop.evaluator.calibrated.pairs:  # as published
            on_text = repruning.on_text(loop)
            rows[f"uniform {solver}, text only"] = lambda: repruning.prune_uniformly(on_text)
        rows[f"uniform {solver}"] = lambda: repruning.prune_uniformly(loop)
    if polishing.tuned(loop):
        rows["searched"] = lambda: repruning.prune_policy(loop, champion.policy)
    for name, put_on in rows.items():
        try:
            examiner.examine(name, put_on)
        except SolverError as error:
            watch.note(f"The row '{name}' is left out of the table: {error}")


def _facts(bench: Bench, champion: Champion, examiner: Examiner) -> dict[str, Any]:
    """What the exported folder and the journal's last line record."""
    store, vlm = bench.loop.evaluator.store, bench.loop.evaluator.vlm
    return {
        **assembly.facts(bench.given, store.sparsities(vlm), vlm),
        "policy": champion.policy.tables,
        "champion": champion.score.candidate,
        "total": champion.score.total,
        "terms": champion.score.terms,
        "correlation": champion.correlation,
        "table": [asdict(row) for row in examiner.rows],
    }


def _best(bench: Bench, champion: Champion, examiner: Examiner) -> str:
    settings_ = bench.given.settings
    about = (
        f"{settings_.ratio:g} of {Path(settings_.model).name}, found by "
        f"{settings.strategy_of(settings_)} over {settings.policy_of(settings_)}."
    )
    found = {"sparsity": examiner.rows[-1].sparsity, **champion.score.terms}
    return policy.write(champion.policy, "best", about, {**found, **examiner.rows[-1].figures})


def _check_sane(bench: Bench, dense: Row) -> None:
    """A model whose own figures are not finite cannot be searched."""
    for name, value in dense.figures.items():
        if not isfinite(value):
            raise ModelError(
                f"{bench.given.checkpoint.folder} gives a {name} of {value} before anything is "
                f"pruned: its weights hold NaN or infinity. Fetch it again, or try --dtype float32."
            )
