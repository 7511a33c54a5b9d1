"""The level store of a run: solved, taken over from an earlier run, or read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slimsearch import files
from slimsearch.errors import ResourceError
from slimsearch.policy import SPARSITY
from slimsearch.record.run import Run
from slimsearch.searching.parts import Loop, note_raised
from slimsearch.searching.watch import Watch
from slimsearch.surgery import level_store, stores


def fill_store(loop: Loop, run: Run, watch: Watch) -> None:
    """Solves every matrix at every level, or reads what this run solved before.

    Where that is damaged it is solved again, and must come out as it was.
    """
    evaluator = loop.evaluator
    family = evaluator.families.get(SPARSITY)
    if family is None or loop.settings.exact:
        return
    vlm, store = evaluator.vlm, evaluator.store
    with watch.stage("level store", len(vlm.matrices)) as advance:
        trouble = run.wrong_levels(run.levels)
        if trouble:
            watch.note(f"{trouble}. The level store is solved anew.")
        elif run.history.levels is not None:
            store.load(run.levels)
            return
        levels = loop.space.levels(family, vlm.body)
        with files.new_folder(run.levels) as folder:
            taken = _take_shared(loop, run, watch, levels, folder)
            if not taken:
                level_store.fill(
                    store, vlm, loop.hessian_batches, levels, loop.solver, loop.tokens, advance,
                    folder,
                )  # fmt: skip
            if trouble and run.wrong_levels(folder):
                run.refuse_levels(trouble)
            files.remove(run.levels)
        if not taken:
            _share(loop, run, watch, levels)
        note_raised(loop, run, watch, "level store")
        run.add_levels()


def _take_shared(
    loop: Loop, run: Run, watch: Watch, levels: Mapping[str, set[float]], folder: Path
) -> bool:
    """Takes over what an earlier run solved, where there is such a store and it is sound."""
    shared = _shared(loop, run)
    if shared is None:
        return False
    found, trouble = stores.find(shared, loop.fingerprint(), levels)
    if trouble:
        watch.note(f"{trouble}. It is not used: the level store is solved anew.")
    if found is None:
        return False
    stores.take(found, folder)
    loop.evaluator.store.load(folder)
    watch.note(f"The level store is that of an earlier run: {found}.")
    return True


def _share(loop: Loop, run: Run, watch: Watch, levels: Mapping[str, set[float]]) -> None:
    """Keeps this run's store for others; that it cannot be is no reason to stop."""
    shared = _shared(loop, run)
    if shared is None or loop.evaluator.store.raised:  # a raised damping is told by whoever solves
        return
    try:
        stores.keep(shared, loop.fingerprint(), levels, run.levels)
    except ResourceError as error:
        watch.note(f"The level store is not shared with other runs: {error}")


def _shared(loop: Loop, run: Run) -> Path | None:
    """Where level stores are shared, if they are."""
    if loop.settings.stores == "none":
        return None
    beside = run.folder.absolute().parent / "level-stores"
    return beside if loop.settings.stores == "auto" else Path(loop.settings.stores).expanduser()
