"""Writes a run's champion, or any model, in the forms that engines run, all in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from slimsearch import artefact, files, plugins, settings
from slimsearch.api import assembly, counting, inputs, pruning
from slimsearch.contracts import Exporter
from slimsearch.errors import PolicyError, RunError, SettingsError
from slimsearch.model import checkpoint, loading
from slimsearch.model.checkpoint import Checkpoint
from slimsearch.model.vlm import VLM
from slimsearch.native import form
from slimsearch.native.parts import Steps
from slimsearch.native.quantise import quantise
from slimsearch.native.unpack import unpack
from slimsearch.record import results
from slimsearch.searching.watch import Watch
from slimsearch.settings import Settings


@dataclass(frozen=True)
class Choices:
    """What exporters can be told; each takes the fields that it has."""

    room: int = 0  # tokens that a fixed cache holds; 0: what the model reads, 2048 at most
    int8: bool = False  # matrices of the decoder in int8, where the form has them
    dtype: str = ""  # what is calculated in, where that is ours to say; empty: the form's own

    @property
    def in_int8(self) -> bool:
        return self.int8 or self.dtype == "int8"


def check(choices: Choices, forms: Sequence[str]) -> None:
    """Refuses a choice that none of these forms has, so that what was asked is not lost unsaid."""
    for choice in fields(choices):
        if getattr(choices, choice.name) != choice.default and not _having(choice.name, forms):
            raise SettingsError(
                f"--{choice.name} says nothing to --to {' --to '.join(forms)}. Leave it out, or "
                f"add a form that has it: "
                f"{', '.join(_having(choice.name, plugins.names('exporters')))}."
            )


def export(
    source: str,
    forms: Sequence[str],
    folder: Path,
    choices: Choices = Choices(),
    pruned_by: Settings | None = None,
    watch: Watch | None = None,
    calibrated_by: Settings | None = None,
) -> dict[str, Any]:
    """Writes `source` in each of `forms` into a folder that does not exist yet; its record.

    `source` is a finished run, a model folder, a hub id or 'demo'; with `pruned_by`, a model that
    is pruned exactly by that policy first. `calibrated_by` says what int8 in our own form is
    calibrated on, where that is neither a run nor pruned now.
    """
    watch = watch or Watch()
    exporters: dict[str, Exporter] = {
        name: plugins.make("exporters", name, asdict(choices)) for name in sorted(set(forms))
    }
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another folder with --out.")
    if pruned_by is not None and artefact.champion(Path(source)) is None:
        _check_said(source, pruned_by, exporters)
    with _model(source, folder, pruned_by, watch) as model, watch.stage("export"):
        found = checkpoint.find(model)
        vlm = loading.load(found, "cpu", _stored_dtype(found))
        if form.FORM in exporters and choices.in_int8:
            pruned = pruned_by and replace(pruned_by, model=source)
            steps = _steps(vlm, model, pruned or calibrated_by or _of_run(source), watch)
            more = {**asdict(choices), "steps": steps}
            exporters[form.FORM] = plugins.make("exporters", form.FORM, more)
        record = artefact.write(vlm, folder, artefact.facts_of(vlm), exporters)
    evaluated = Path(source) / results.FOLDER / results.CHAMPION
    if pruned_by is None and evaluated.is_dir():
        results.copy(evaluated, folder / results.FOLDER)
        artefact.renew_card(folder)
    return record


def _having(choice: str, forms: Sequence[str]) -> list[str]:
    return [form for form in forms if hasattr(plugins.find("exporters", form), choice)]


def _check_said(source: str, by: Settings, exporters: Mapping[str, Exporter]) -> None:
    """Refuses a form that cannot say what a policy does, before a model is pruned for it."""
    _, route, _ = counting.planned(replace(by, model=source), by.policy)
    for name, exporter in exporters.items():
        if unsaid := exporter.unsaid(route):
            raise PolicyError(
                f"{source} cannot be written with --to {name} as the policy {by.policy} has it: "
                f"its decoder then {unsaid}. Leave out --to {name}, or that table of the policy."
            )


def _of_run(source: str) -> Settings | None:
    """What a run was set to, or the demo model's defaults; None for other models."""
    if artefact.champion(Path(source)) is not None:
        return settings.read(Path(source) / "settings.toml")
    return Settings() if source == settings.DEMO else None


def _steps(vlm: VLM, model: str, by: Settings | None, watch: Watch) -> Mapping[str, Steps]:
    """int8 matrices with error feedback, or none where nothing says what to calibrate on.

    `by` names the model that this one was made of, which may settle what that is.
    """
    if by is None:
        watch.note(
            "int8 weights are rounded to the nearest: nothing says what to calibrate on. Export a "
            "run, or give its settings with --from."
        )
        return {}
    given = inputs.gather(replace(by, model=model, calibration=settings.calibration_of(by)))
    calibrated = assembly.calibrate(given, vlm)
    with watch.stage("int8", len(vlm.matrices)) as advance:
        return quantise(vlm, calibrated.all, by.tokens, by.damping, advance)


def _model(
    source: str, folder: Path, pruned_by: Settings | None, watch: Watch
) -> AbstractContextManager[str]:
    """Where the model to write stands, for as long as it is needed."""
    champion = artefact.champion(Path(source))
    if pruned_by is None and _is_packed(Path(source)):
        return _unpacked(Path(source), folder)
    if pruned_by is None:
        return nullcontext(str(champion or source))
    if champion is not None:
        raise SettingsError(
            f"{source} is a run, whose champion is pruned already. Leave out --policy, or give the "
            f"model that the run began with."
        )
    return _Pruned(replace(pruned_by, model=source), folder, watch)


def _is_packed(source: Path) -> bool:
    """Whether a folder holds a model in our own form alone."""
    return (source / form.FORM).is_dir() and not artefact.find(source).holds("hf")


@contextmanager
def _unpacked(source: Path, beside: Path) -> Iterator[str]:
    """A native export as a model folder that vanishes afterwards."""
    with _place(beside) as folder:
        unpack(artefact.find(source).native(), Path(folder))
        yield folder


class _Pruned(AbstractContextManager[str]):
    """A model pruned by a policy, in a folder that vanishes afterwards."""

    def __init__(self, settings: Settings, beside: Path, watch: Watch):
        self._place = _place(beside)
        self._settings, self._watch = settings, watch

    def __enter__(self) -> str:
        try:
            folder = Path(self._place.name) / "model"
            return str(pruning.prune(self._settings, folder, self._watch).folder)
        except BaseException:
            self._place.cleanup()
            raise

    def __exit__(self, *_: object) -> None:
        self._place.cleanup()


def _place(beside: Path) -> TemporaryDirectory[str]:
    """A folder that vanishes, next to the one that will be written."""
    with files.writing(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(
            prefix=f".{beside.name}-", suffix=files.PARTIAL, dir=beside.parent
        )


def _stored_dtype(found: Checkpoint) -> str:
    """The dtype of all tensors on disk, so that they are held as they are; float32 holds any."""
    kinds = {found.dtype(key) for key in found.shards}
    kind = kinds.pop() if len(kinds) == 1 else torch.float32
    return str(kind if kind in (torch.bfloat16, torch.float16) else torch.float32)[6:]
