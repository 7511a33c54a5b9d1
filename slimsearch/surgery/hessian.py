"""The Hessian of one matrix's layer-wise loss, H = X X^T summed over calibration tokens.

Solvers need it as U, the upper Cholesky factor of the inverse of the damped H (SparseGPT,
section 3.2): `hessian.factor(0.01).upper`. Everything here is free of the scale of H.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from slimsearch.errors import SolverError

CHUNK = 4096  # tokens turned into fp32 at a time
SHORT = (torch.bfloat16, torch.float16)
LEAST = 256  # columns of a product that is worth halving
STRIPE = 512  # columns of H multiplied at a time in `half_trace`
UNFIT = (
    "calibration inputs of this matrix are not finite (NaN or infinity). Run the model in"
    " bfloat16 or float32, not in float16."
)
LADDER = (0.001, 0.01, 0.1, 1.0, 10.0)  # dampings tried after the one asked for has failed


@dataclass(frozen=True)
class Factor:
    """U^T U = (H + damping * mean(diag H) * I)^-1, with H_jj = 1 for a dead column."""

    upper: Tensor  # [columns, columns] fp32, zeros below the diagonal
    dead: Tensor  # [columns] bool: no token ever had anything there
    damping: float  # the one that worked, at least the one asked for
    added: float  # what was added to the diagonal, damping * mean(diag H)


class Hessian:
    """X X^T of `tokens` calibration tokens; `matrix` is [columns, columns] fp32, undamped.

    `parts` holds its diagonal for each calibration set by itself, where a solver asks for that.
    `drift` is sum (x' - x) x^T over `drifted` of the tokens, x' being the inputs that the dense
    model has in the place of x.
    """

    def __init__(self, matrix: Tensor, tokens: int):
        self.matrix = matrix
        self.tokens = tokens
        self.parts: dict[str, Tensor] = {}  # calibration set -> [columns]
        self.drift: Tensor | None = None  # [columns, columns]
        self.drifted = 0
        self._factors: dict[float, Factor] = {}

    @staticmethod
    def zeros(columns: int, device: torch.device | str = "cpu") -> "Hessian":
        return Hessian(torch.zeros(columns, columns, device=device), 0)

    def add(self, inputs: Tensor) -> None:
        """Adds the inputs of the matrix, [tokens, columns] in any precision, padding left out."""
        self._factors.clear()
        self.tokens += inputs.shape[0]
        with full_precision():
            for chunk in inputs.to(self.matrix.device).split(CHUNK):
                if chunk.is_cuda and chunk.dtype in SHORT:
                    # On tensor cores: products of short numbers are exact in fp32, and so summed.
                    product = torch.mm(chunk.T, chunk, out_dtype=torch.float32)  # pyright: ignore[reportCallIssue]
                    self.matrix.add_(product)
                else:
                    _add_squared(self.matrix, chunk.to(torch.float32))

    def add_part(self, name: str, inputs: Tensor) -> None:
        """Notes that these inputs, which `add` is given too, belong to one calibration set."""
        squares = inputs.to(self.matrix.device, torch.float32).square().sum(0)
        self.parts[name] = self.parts.get(name, 0.0) + squares

    def add_drift(self, dense: Tensor, inputs: Tensor) -> None:
        """Notes what the dense model has in the place of these inputs, which `add` is given too."""
        if self.drift is None:
            self.drift = torch.zeros_like(self.matrix)
        self.drifted += len(inputs)
        with full_precision():
            for there, here in zip(dense.split(CHUNK), inputs.split(CHUNK), strict=True):
                part = here.to(self.matrix.device, torch.float32)
                self.drift.addmm_((there.to(part) - part).T, part)

    def follow(self, weights: Tensor, ridge: float) -> Tensor:
        """Weights that give, from these inputs, more nearly what the dense model's inputs gave.

        Minimises |V x - W x'|^2 + ridge * mean(diag H) |V - W|^2 over V, in closed form. The ridge
        keeps what the calibration says little about as it was.
        """
        if self.drift is None or not self.drifted:
            return weights
        added = max(ridge * float(self.matrix.diagonal().mean()), 1e-12)
        damped = self.matrix.clone()
        damped.diagonal().add_(added)
        with full_precision():
            lower, failed = torch.linalg.cholesky_ex(damped)
            if int(failed):
                return weights
            pulled = weights.float() @ self.drift * (self.tokens / self.drifted)
            return weights + torch.cholesky_solve(pulled.T, lower).T.to(weights.dtype)

    def factor(self, damping: float) -> Factor:
        """U for this damping, or for the next higher one of the ladder that works. Cached."""
        if damping not in self._factors:
            self._factors[damping] = self._factorise(damping)
        return self._factors[damping]

    @property
    def raised(self) -> float | None:
        """The damping that it took, where the one asked for did not do."""
        used = [found.damping for asked, found in self._factors.items() if found.damping > asked]
        return max(used, default=None)

    @property
    def column_norms(self) -> Tensor:
        """||X_j||_2 of every input column, [columns]."""
        return self.matrix.diagonal().clamp(min=0).sqrt()

    def half_trace(self, change: Tensor) -> float:
        """1/2 tr(dW H dW^T) for a change dW [rows, columns]: half of ||dW X||^2.

        Every solver comes by here, so what is not finite is refused here.
        """
        total = torch.zeros((), dtype=torch.float64, device=change.device)
        with full_precision():
            for start in range(0, change.shape[1], STRIPE):
                # H is symmetric: what is right of a stripe's diagonal square counts twice.
                stripe = change[:, start : start + STRIPE]
                width = stripe.shape[1]
                product = stripe @ self.matrix[start : start + width, start:]
                total += (product[:, :width] * stripe).sum(dtype=torch.float64) / 2
                total += (product[:, width:] * change[:, start + width :]).sum(dtype=torch.float64)
        if not isfinite(found := float(total)):
            raise SolverError(f"The weights or the {UNFIT}")
        return max(found, 0.0)

    def _factorise(self, damping: float) -> Factor:
        diagonal = self.matrix.diagonal()
        if self.tokens == 0:
            raise SolverError(
                "No calibration token has reached this matrix, so there is nothing to prune it by."
                " Calibrate with texts or pairs that pass through it."
            )
        if not bool(torch.isfinite(self.matrix).all()):
            raise SolverError(f"The {UNFIT}")
        dead = diagonal == 0
        # Over live columns only, so that neither dead columns nor the scale of H play a part.
        mean = float(diagonal[~dead].mean()) if not bool(dead.all()) else 0.0
        dampings = (damping, *(step for step in LADDER if step > damping))
        for tried in dampings:
            upper = _inverse_factor(self.matrix, dead, tried * mean)
            if upper is not None:
                return Factor(upper, dead, tried, tried * mean)
        raise SolverError(
            f"The Hessian of this matrix stays indefinite up to a damping of {dampings[-1]:g}."
            " Calibrate with more tokens."
        )


@contextmanager
def full_precision() -> Iterator[None]:
    """fp32 products in real fp32: TF32 keeps 10 bits, too few for a Hessian."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _add_squared(matrix: Tensor, rows: Tensor) -> None:
    """Adds rows^T rows, by halves: of what is off the diagonal squares one side is the other's."""
    size = rows.shape[1]
    if size <= LEAST:
        matrix.addmm_(rows.T, rows)
        return
    half = size // 2
    first, second = rows[:, :half], rows[:, half:]
    _add_squared(matrix[:half, :half], first)
    _add_squared(matrix[half:, half:], second)
    across = first.T @ second
    matrix[:half, half:] += across
    matrix[half:, :half] += across.T


def _inverse_factor(matrix: Tensor, dead: Tensor, added: float) -> Tensor | None:
    """Upper U with U^T U = (H + added * I)^-1, or None where H is not positive definite.

    Reverse the order of rows and columns by J: J H J = L L^T gives H = (J L J)(J L J)^T with an
    upper factor, and so U = J L^-1 J. One factorisation and no explicit inverse: less work and
    less rounding than the published Cholesky, inverse, Cholesky.
    """
    reversed_ = matrix.flip(0, 1)
    reversed_.diagonal().add_(added + dead.flip(0).float())
    lower, failed = torch.linalg.cholesky_ex(reversed_)
    if int(failed) != 0:
        return None
    with full_precision():
        upper = _inverse_of_lower(lower).flip(0, 1)
    return upper if bool(torch.isfinite(upper).all()) else None


def _inverse_of_lower(lower: Tensor) -> Tensor:
    """[[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]], by halves: nearly all products."""
    size = lower.shape[0]
    if size <= 256:
        identity = torch.eye(size, device=lower.device)
        return torch.linalg.solve_triangular(lower, identity, upper=False)
    half = size // 2
    inverse = torch.zeros_like(lower)
    first, second = _inverse_of_lower(lower[:half, :half]), _inverse_of_lower(lower[half:, half:])
    inverse[:half, :half], inverse[half:, half:] = first, second
    inverse[half:, :half] = -(second @ (lower[half:, :half] @ first))
    return inverse
