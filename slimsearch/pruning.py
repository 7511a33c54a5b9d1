"""One policy, pruned exactly and written: no search."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from slimsearch import assembly, finish
from slimsearch.errors import PolicyError, RunError
from slimsearch.finish import Examiner, Row
from slimsearch.settings import Settings
from slimsearch.watch import Watch


@dataclass(frozen=True)
class PrunedModel:
    folder: Path
    table: tuple[Row, ...]


def prune(settings: Settings, folder: Path, watch: Watch) -> PrunedModel:
    """Prunes settings.model by settings.policy into a new model folder."""
    if folder.exists():
        raise RunError(f"{folder} exists already; choose another folder with --out.")
    bench = assembly.load(assembly.gather(settings), watch)
    loop = bench.loop
    if not loop.space.single:
        raise PolicyError(
            f"Policy '{settings.policy}' still has ranges, so there is something to search: use "
            f"slimsearch run, or give a policy of numbers (a run's best.toml, or 'uniform')."
        )
    examiner = Examiner(loop, bench.tasks, bench.held_out, watch)
    examiner.examine("dense")
    policy = loop.space.decode((0,) * len(loop.space.genes))
    with watch.stage("prune", len(loop.evaluator.vlm.matrices)) as advance:
        finish.prune_policy(loop, policy, advance)
    examiner.examine(f"{settings.policy} {settings.solver}")
    rows = [asdict(row) for row in examiner.rows]
    made = assembly.facts(bench, assembly.fingerprint(bench.given))
    bench.exporter.write(
        loop.evaluator.vlm,
        folder,
        {**made, "policy": policy.tables, "table": rows},
    )
    return PrunedModel(folder, tuple(examiner.rows))
