"""What a solver is asked for, checked once: which solver, which format, how many zeros."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from ...errors import FewbitsError, nearest
from ...formats.base import NumberFormat
from ...formats.binary import BinaryCoding
from ...formats.granularity import Granularity, PerChannel
from ...formats.integer import Integer
from ...formats.scales import ScaleStorage
from ...formats.sparsity import NofM, Sparsity
from ...formats.vectors import Vectors

SolverName = Literal[
    "rtn", "mse", "gptq", "obq", "descent", "magnitude", "wanda", "sparsegpt", "obs"
]
SOLVERS: tuple[str, ...] = get_args(SolverName)
#: Solvers that choose which weights become zero, and those that need a format.
PRUNING = frozenset({"magnitude", "wanda", "sparsegpt", "obs"})
QUANTIZING = frozenset({"rtn", "mse", "gptq", "obq", "descent"})
#: Solvers that cannot work without a Hessian.
SECOND_ORDER = frozenset({"gptq", "obq", "descent", "sparsegpt", "obs"})


@dataclasses.dataclass(frozen=True)
class SolverOptions:
    """How one weight matrix ``[rows, columns]`` is compressed.

    Attributes:
        solver: ``rtn``: round to nearest. ``mse``: the same with searched scales. ``gptq``: column
            by column with error feedback (spec 6). ``descent``: GPTQ or SparseGPT, then every
            kept weight is rounded again as the others are now, until none changes: the least
            loss, at a few times GPTQ's time. ``obq``: one weight at a time, exact (spec 19).
            ``descent`` and ``obq`` take a sparsity as well. ``magnitude``, ``wanda``: baselines
            of pruning. ``sparsegpt``: the loop of GPTQ with a mask. ``obs``: one weight at a
            time, exact. With a format, magnitude and Wanda then round to nearest, SparseGPT does
            both at once, OBS lets OBQ quantize what it keeps.
        number_format: what values become; None to prune only, values stay float.
        granularity: which values share a scale, over the matrix.
        scale_storage: in what scales are stored; codes are made with the scale as stored.
        symmetric: False: integers with a scale and a zero point from minimum and maximum.
        sparsity: share of zeros in [0, 1), exact over the matrix (Wanda: over each row), or n:m:
            exactly n of m neighbours along a row are kept.
        sparsity_storage: how kept values are stored; None for n:m its own, else ``bitmap`` or
            ``rows``, whichever is smaller.
        scale_method: ``absmax`` or ``mse`` (searched, errors weighed by the Hessian's diagonal);
            None for the solver's own: ``absmax`` for ``rtn``, else ``mse``. Binary coding has
            no such choice.
        activation_order: ``gptq``, ``sparsegpt`` and ``descent`` take inputs with the largest
            second moment first; scales are then found beforehand. What is stored keeps its order.
            Not for ``obq`` and ``obs``, which find their own.
        damping: share of the mean of the Hessian's diagonal that is added to it.
        block_columns: columns after which errors are passed on to all others, and for which a
            share of zeros is chosen at once; no other effect but on rounding errors.
    """

    solver: SolverName
    number_format: NumberFormat | None = None
    granularity: Granularity = PerChannel(0)  # noqa: RUF009 (frozen)
    scale_storage: ScaleStorage = "float32"
    symmetric: bool = True
    sparsity: float | NofM | Vectors | None = None
    sparsity_storage: Sparsity | None = None
    scale_method: Literal["absmax", "mse"] | None = None
    activation_order: bool = False
    damping: float = 0.01
    block_columns: int = 128

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise _error(f"no solver is called {self.solver!r}", nearest(self.solver, SOLVERS))
        if self.solver in QUANTIZING and self.number_format is None:
            raise _error(f"{self.solver} needs a number format")
        if self.solver in PRUNING and self.sparsity is None:
            raise _error(
                f"{self.solver} needs a sparsity",
                "a share of zeros such as 0.5, or n:m like 2:4",
            )
        if self.solver in QUANTIZING - {"obq", "descent"} and self.sparsity is not None:
            other = "sparsegpt" if self.solver == "gptq" else "magnitude"
            raise _error(f"{self.solver} does not prune", f"{other} prunes and rounds")
        if isinstance(self.sparsity, Vectors) and self.solver not in ("magnitude", "wanda"):
            raise _error(f"{self.solver} does not prune vectors", "magnitude or wanda")
        if isinstance(self.sparsity, float | int) and not 0 <= self.sparsity < 1:
            raise FewbitsError(
                "bad-sparsity", f"the share of zeros is at least 0 and below 1, not {self.sparsity}"
            )
        if not self.symmetric and not isinstance(self.number_format, Integer):
            raise _error("only integers take zero points", "symmetric, or an integer format")
        if self.scale_method not in (None, "absmax", "mse"):
            raise _error(f"scales are not found by {self.scale_method!r}", "absmax or mse")
        if self.solver == "mse" and self.scale_method == "absmax":
            raise _error("the solver mse searches its scales", "the solver rtn takes absmax")
        if not 0 <= self.damping <= 1:
            raise _error(f"damping is a share from 0 to 1, not {self.damping}")
        if self.block_columns < 1:
            raise _error(f"a block has at least one column, not {self.block_columns}")

    @property
    def searches_scales(self) -> bool:
        """Whether scales are searched for the least squared error."""
        if isinstance(self.number_format, BinaryCoding):
            return False
        if self.scale_method is None:
            return self.solver != "rtn"
        return self.scale_method == "mse"

    @property
    def second_order(self) -> bool:
        """Whether the solver cannot work without a Hessian."""
        return self.solver in SECOND_ORDER


def _error(message: str, hint: str | None = None) -> FewbitsError:
    return FewbitsError("bad-solver", message, hint=hint)
