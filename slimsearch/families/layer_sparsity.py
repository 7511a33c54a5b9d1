"""Weights removed one by one: a sparsity ratio for each decoder block, or for each matrix."""

from collections.abc import Iterator, Sequence

from slimsearch.contracts import Edits, Family
from slimsearch.errors import PolicyError
from slimsearch.model.vlm import VLM
from slimsearch.policy import Body, Gene, Matrix, Table, matching, parse_levels, unmatched
from slimsearch.surgery.level_store import LevelStore


class LayerSparsity(Family):
    """Globs name blocks ('blocks.*') or matrices ('blocks.*.down'); what none names stays dense."""

    def choices(self, line: str, value: str | float, ratio: float) -> tuple[float, ...]:
        return parse_levels(value, ratio, f"[layer_sparsity] '{line}'")

    def genes(self, table: Table, body: Body, ratio: float) -> list[Gene]:
        matrices = body.matrices
        names = [name for matrix in matrices for name in (matrix.block, matrix.name)]
        for glob in unmatched(table, names):
            raise PolicyError(
                f"[layer_sparsity] '{glob}' names no part of this model. Parts are called "
                f"{matrices[0].block} to {matrices[-1].block}, matrices like {matrices[0].name}."
            )
        sizes: dict[str, int] = {}
        choices: dict[str, tuple[float, ...]] = {}
        for matrix, (key, value) in _lines(table, matrices):
            sizes[key] = sizes.get(key, 0) + matrix.size
            choices[key] = self.choices(key, value, ratio)
        # Blocks before matrices: in the policy that they become, a later line wins.
        keys = sorted(sizes, key=lambda key: key.count("."))
        return [Gene("layer_sparsity", key, choices[key], sizes[key]) for key in keys]

    def edits(self, table: Table, body: Body) -> dict[str, float]:
        lines = _lines(table, body.matrices)
        return {matrix.name: level for matrix, (_, value) in lines if (level := float(value)) > 0}

    def apply(self, edits: Edits, vlm: VLM, store: LevelStore) -> None:
        store.stitch(vlm, edits)

    def restore(self, vlm: VLM, store: LevelStore) -> None:
        store.restore(vlm)

    def removed(self, edits: Edits, body: Body) -> float:
        return sum(edits.get(matrix.name, 0.0) * matrix.size for matrix in body.matrices)


def _lines(
    table: Table, matrices: Sequence[Matrix]
) -> Iterator[tuple[Matrix, tuple[str, str | float]]]:
    """Each matrix with the last line that names it or its block, as (the part's name, value).

    A candidate has a line for every matrix: names are looked up, and only globs compared.
    """
    places = {glob: place for place, glob in enumerate(table)}
    globs = [glob for glob in table if set(glob) & set("*?[")]
    for matrix in matrices:
        found = [
            (places[line], name, table[line])
            for name in (matrix.block, matrix.name)
            for line in (name, *globs)
            if line in places and (line == name or matching({line: 0}, name))
        ]
        if found:
            _, name, value = max(found, key=lambda line: line[0])
            yield matrix, (name, value)
