"""Observers: streaming statistics of a tensor, and the range they recommend.

None of them keeps activations. `MinMax` and `MovingMinMax` keep two numbers; the others keep a
histogram of fixed size whose bins are merged in pairs when a value falls outside (so that the
result doesn't depend on how the stream is cut, except for bin edges).
"""

from __future__ import annotations

import abc
import math

import numpy as np

from ..errors import FewbitsError, nearest
from ..formats.affine import AffineFormat

BINS = 4096


class Observer(abc.ABC):
    """Sees a tensor piece by piece and then recommends a range."""

    @abc.abstractmethod
    def update(self, values: np.ndarray) -> None:
        """See more values (any shape, float)."""

    @abc.abstractmethod
    def range(self, grid: AffineFormat) -> tuple[float, float]:
        """The (low, high) reals that `grid` should cover."""


class MinMax(Observer):
    """Everything that occurs."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def update(self, values: np.ndarray) -> None:
        """See more values."""
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    def range(self, grid: AffineFormat) -> tuple[float, float]:
        """Smallest and largest value seen; (0, 0) when nothing was."""
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)


class MovingMinMax(Observer):
    """Exponential moving average of each piece's extremes, after Jacob et al. 2018."""

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self.bounds: tuple[float, float] | None = None

    def update(self, values: np.ndarray) -> None:
        """See more values; one call is one step of the average."""
        if not values.size:
            return
        new = float(values.min()), float(values.max())
        if self.bounds is None:
            self.bounds = new
        else:
            keep = self.momentum
            low, high = self.bounds
            self.bounds = (keep * low + (1 - keep) * new[0], keep * high + (1 - keep) * new[1])

    def range(self, grid: AffineFormat) -> tuple[float, float]:
        """The averaged extremes; (0, 0) when nothing was seen."""
        return self.bounds if self.bounds is not None else (0.0, 0.0)


class Histogram(Observer):
    """Base of the observers that weigh clipping against resolution."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.width = 0.0  # of a bin; 0 until a nonzero value is seen
        self.origin = -BINS // 2  # the first bin covers origin*width .. (origin+1)*width
        self.zeros = 0
        self.extremes = MinMax()

    def update(self, values: np.ndarray) -> None:
        """See more values."""
        flat = np.asarray(values, np.float64).ravel()
        self.extremes.update(flat)
        nonzero = flat[flat != 0]
        self.zeros += flat.size - nonzero.size
        if not nonzero.size:
            return
        largest = float(np.abs(nonzero).max())
        if self.width == 0.0:
            # A power of two, so that merging pairs later gives the same edges in any order.
            self.width = 2.0 ** (math.ceil(math.log2(largest)) + 1 - int(math.log2(BINS)))
        while largest >= self.width * (BINS // 2):
            self._widen()
        index = np.floor(nonzero / self.width).astype(np.int64) - self.origin
        self.counts += np.bincount(np.clip(index, 0, BINS - 1), minlength=BINS)

    def _widen(self) -> None:
        merged = self.counts.reshape(-1, 2).sum(1)
        self.counts = np.zeros(BINS, np.int64)
        start = BINS // 4
        self.counts[start : start + len(merged)] = merged
        self.width *= 2.0

    def _centres(self) -> np.ndarray:
        return (np.arange(BINS) + self.origin + 0.5) * self.width

    def range(self, grid: AffineFormat) -> tuple[float, float]:
        """The recommended range, inside the extremes seen."""
        low, high = self.extremes.range(grid)
        if low == high or self.width == 0.0:
            return low, high
        return self._clipped(grid, low, high)

    @abc.abstractmethod
    def _clipped(self, grid: AffineFormat, low: float, high: float) -> tuple[float, float]: ...


class Percentile(Histogram):
    """Cuts off the same small share of values at either end."""

    def __init__(self, percentile: float = 99.99) -> None:
        super().__init__()
        self.percentile = percentile

    def _clipped(self, grid: AffineFormat, low: float, high: float) -> tuple[float, float]:
        counts = self.counts.copy()
        counts[-self.origin] += self.zeros
        share = np.cumsum(counts) / counts.sum()
        tail = (100.0 - self.percentile) / 100.0
        first = int(np.searchsorted(share, tail, side="right"))
        last = int(np.searchsorted(share, 1.0 - tail, side="left"))
        edges = (np.arange(BINS + 1) + self.origin) * self.width
        return max(low, float(edges[first])), min(high, float(edges[last + 1]))


def _candidates(low: float, high: float) -> list[tuple[float, float]]:
    """Ranges shrunk towards zero, the full one first; each end shrinks on its own."""
    steps = [1.0 - 0.02 * i for i in range(36)]
    pairs = [(low * step, high * step) for step in steps]
    if low < 0 < high:
        pairs += [(low, high * step) for step in steps[1:]]
        pairs += [(low * step, high) for step in steps[1:]]
    return pairs


class MeanSquaredError(Histogram):
    """The range with the least squared rounding and clipping error."""

    def _clipped(self, grid: AffineFormat, low: float, high: float) -> tuple[float, float]:
        filled = np.flatnonzero(self.counts)
        centres, counts = self._centres()[filled], self.counts[filled]

        def error(bounds: tuple[float, float]) -> float:
            parameters = grid.parameters(*bounds)
            code = np.rint(centres / parameters.scale) + parameters.zero_point
            code = np.clip(code, grid.minimum, grid.maximum)
            back = (code - parameters.zero_point) * parameters.scale
            return float((counts * (centres - back) ** 2).sum())

        return min(_candidates(low, high), key=error)


class Entropy(Histogram):
    """The range whose quantized distribution has the least Kullback-Leibler divergence."""

    def _clipped(self, grid: AffineFormat, low: float, high: float) -> tuple[float, float]:
        filled = np.flatnonzero(self.counts)
        centres, counts = self._centres()[filled], self.counts[filled].astype(np.float64)
        reference = counts / counts.sum()

        def divergence(bounds: tuple[float, float]) -> float:
            parameters = grid.parameters(*bounds)
            code = np.rint(centres / parameters.scale) + parameters.zero_point
            code = np.clip(code, grid.minimum, grid.maximum).astype(np.int64) - grid.minimum
            # Clipped mass is piled on the outermost bins of the reference, and each level spreads
            # its mass evenly over the bins that it stands for.
            inside = (centres >= bounds[0] - self.width) & (centres <= bounds[1] + self.width)
            levels = grid.maximum - grid.minimum + 1
            mass = np.bincount(code[inside], weights=reference[inside], minlength=levels)
            share = np.bincount(code[inside], minlength=levels)
            spread = np.where(inside, mass[code] / np.maximum(share[code], 1), 0.0)
            spread = np.maximum(spread, 1e-12)
            clipped = np.where(inside, reference, 0.0)
            outer = np.flatnonzero(inside)
            clipped[outer[0]] += reference[: outer[0]].sum()
            clipped[outer[-1]] += reference[outer[-1] + 1 :].sum()
            known = clipped > 0
            return float((clipped[known] * np.log(clipped[known] / spread[known])).sum())

        return min(_candidates(low, high), key=divergence)


def make_observer(name: str, percentile: float = 99.99) -> Observer:
    """An observer by its recipe name: minmax, moving, percentile, mse or entropy.

    Raises:
        FewbitsError: ``unknown-observer``.
    """
    makers = {
        "minmax": MinMax,
        "moving": MovingMinMax,
        "percentile": lambda: Percentile(percentile),
        "mse": MeanSquaredError,
        "entropy": Entropy,
    }
    if name not in makers:
        raise FewbitsError(
            "unknown-observer", f"unknown observer {name!r}", hint=nearest(name, makers)
        )
    return makers[name]()
