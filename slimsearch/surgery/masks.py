"""Which weights go: the lowest scores, counted exactly, equal ones in order of their index.

Masks are True where a weight goes. Shared by the solvers.
"""

import re
from collections.abc import Sequence
from math import isclose

import torch
from torch import Tensor

from slimsearch.contracts import Pruned
from slimsearch.errors import SettingsError
from slimsearch.surgery.hessian import Hessian


def lowest(scores: Tensor, count: int) -> Tensor:
    """The `count` lowest of all scores, of any shape."""
    flat = scores.reshape(-1)
    if count <= 0 or count >= flat.numel():
        return torch.full_like(scores, count > 0, dtype=torch.bool)
    threshold = flat.kthvalue(count).values
    mask = flat <= threshold
    surplus = int(mask.sum()) - count
    if surplus:  # several scores equal the threshold: the last ones of them stay
        mask[(flat == threshold).nonzero()[-surplus:, 0]] = False
    return mask.view(scores.shape)


def lowest_per_row(scores: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """For each total count the lowest of every row, [rows, columns]; shares differ by one at most.

    Row r takes floor(count * (r + 1) / rows) - floor(count * r / rows), so that the sum is exact.
    """
    rows, columns = scores.shape
    order = scores.argsort(dim=1, stable=True)
    places = torch.arange(columns, device=scores.device).expand(rows, columns)
    rank = torch.empty_like(order).scatter_(1, order, places)
    ends = torch.arange(rows + 1, device=scores.device)
    return [rank < (count * ends // rows).diff()[:, None] for count in counts]


def lowest_of_groups(scores: Tensor, keep: tuple[int, int]) -> Tensor:
    """N:M: in each group of M neighbours of a row, all but the N highest; [rows, columns]."""
    kept, group = keep
    grouped = scores.reshape(scores.shape[0], -1, group)
    order = grouped.argsort(dim=2, stable=True)[:, :, : group - kept]
    mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(2, order, True)
    return mask.view(scores.shape)


def without(weights: Tensor, mask: Tensor, hessian: Hessian) -> Pruned:
    """The weights less the masked ones, the others as they were."""
    weights = weights.float()
    return Pruned(weights.masked_fill(mask, 0.0), hessian.half_trace(weights * mask))


def rounded(weights: Tensor, *dtypes: torch.dtype) -> Tensor:
    """Weights rounded to each dtype in turn; none but a zero becomes zero by it."""
    for dtype in dtypes:
        kept, weights = weights, weights.to(dtype)
        if dtype == kept.dtype:
            continue
        least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # that is not zero
        lost = (weights == 0) & (kept != 0)
        weights = torch.where(lost, kept.sign().to(dtype) * least, weights)
    return weights


def groups(keep: str, columns: int, levels: Sequence[float]) -> tuple[int, int] | None:
    """`keep` as numbers, "2:4" -> (2, 4) and "" -> None, having checked what is asked for."""
    for level in levels:
        if not 0.0 <= level <= 1.0:
            raise SettingsError(f"A level is a share of weights from 0 to 1, found {level}.")
    if not keep:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", keep)
    kept, group = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < kept < group:
        raise SettingsError(
            f"`keep` says how many of how many weights stay, as '2:4', not '{keep}'."
        )
    if columns % group:
        raise SettingsError(
            f"`keep` {keep} needs columns in groups of {group}, but a matrix has {columns}."
            " Choose a group that divides it, or leave `keep` empty."
        )
    for level in levels:
        if not isclose(level, 1 - kept / group):
            raise SettingsError(
                f"`keep` {keep} removes {1 - kept / group:g} of the weights and nothing else,"
                f" found a level of {level:g}. Leave `keep` empty to search over levels."
            )
    return kept, group
