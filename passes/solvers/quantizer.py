"""The scales of one matrix, and rounding of single columns or scattered values under them.

Solvers change weights while they round others. A group of neighbours in a row therefore gets its
scale only when the solver reaches it; every other granularity gets its scales beforehand.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...formats.binary import BinaryCoding
from ...formats.compressed import CompressedTensor
from ...formats.granularity import (
    Granularity,
    PerBlock,
    PerChannel,
    PerGroup,
    PerTensor,
    PerToken,
)
from ...formats.scales import store_scales
from ...formats.sparsity import Mask, Sparsity
from .fit import fit
from .nearest import NearestLevel
from .options import SolverOptions
from .threads import one_thread

Shape = tuple[int, int]


def scale_index(
    granularity: Granularity, shape: Shape, rows: Tensor, columns: Tensor | int
) -> Tensor:
    """Index into the flattened scales of the values at (`rows`, `columns`), which broadcast."""
    length = shape[1]
    if isinstance(granularity, PerChannel):
        return rows + 0 * columns if granularity.axis % 2 == 0 else columns + 0 * rows
    if isinstance(granularity, PerToken):
        return rows + 0 * columns
    if isinstance(granularity, PerGroup) and granularity.axis % 2 == 1:
        return rows * -(-length // granularity.size) + columns // granularity.size
    if isinstance(granularity, PerGroup):
        return rows // granularity.size * length + columns
    if isinstance(granularity, PerBlock):
        return (rows * length + columns) // granularity.size
    assert isinstance(granularity, PerTensor)
    return 0 * (rows + columns)


class Quantizer:
    """Scales of a matrix, some of them yet to be found.

    Attributes:
        group: columns that share their scales and wait for `begin`; None where all scales are
            there from the start.
    """

    def __init__(
        self, weight: Tensor, options: SolverOptions, importance: Tensor, *, dynamic: bool
    ) -> None:
        """Find the scales of `weight`, or prepare for finding them group by group.

        Args:
            weight: ``[rows, columns]`` float32.
            options: with a number format.
            importance: of each column's squared errors, ``[columns]``.
            dynamic: wait for `begin` where the granularity allows it.
        """
        assert options.number_format is not None
        self.options = options
        self.shape: Shape = (weight.shape[0], weight.shape[1])
        self._format = options.number_format
        self._binary = self._format if isinstance(self._format, BinaryCoding) else None
        self._level = NearestLevel(self._format, weight.device)
        self._importance = importance.to(weight.dtype)
        self._scale_shape = options.granularity.scale_shape(self.shape)
        self._rows = torch.arange(self.shape[0], device=weight.device)
        count = int(np.prod(self._scale_shape, dtype=np.int64))
        planes = (self._binary.bits,) if self._binary else ()
        self._exact = np.zeros((count, *planes))
        self._stored = torch.zeros(count, *planes, device=weight.device)
        self._zero = None if options.symmetric else torch.zeros(count, device=weight.device)
        # Doubly quantized scales depend on the mean of all of them.
        waits = dynamic and options.scale_storage != "double"
        self.group = self._columns_together() if waits else None
        if self.group is None:
            granularity = options.granularity
            spread = np.broadcast_to(self._importance.cpu().numpy(), self.shape).copy()
            rows = np.ascontiguousarray(granularity.rows(weight.cpu().numpy()))
            weights = np.ascontiguousarray(granularity.rows(spread))
            device = weight.device
            self._set(
                torch.arange(count, device=device),
                torch.from_numpy(rows).to(device),
                torch.from_numpy(weights).to(device),
            )

    def _columns_together(self) -> int | None:
        granularity = self.options.granularity
        if isinstance(granularity, PerGroup) and granularity.axis % 2 == 1:
            return granularity.size
        if isinstance(granularity, PerBlock) and self.shape[1] % granularity.size == 0:
            return granularity.size
        return None

    def begin(self, column: int, values: Tensor) -> None:
        """Find the scales of the group that starts at `column` and now holds `values`."""
        stop = column + values.shape[1]
        ids = self._ids(self._rows, column)
        self._set(ids, values, self._importance[column:stop].expand(values.shape))

    def _set(self, ids: Tensor, rows: Tensor, importance: Tensor) -> None:
        fitted = fit(rows, self.options, self._level, importance)
        self._exact[ids.cpu().numpy()] = fitted.exact
        self._stored[ids] = fitted.stored
        if self._zero is not None and fitted.zero is not None:
            self._zero[ids] = fitted.zero

    def _ids(self, rows: Tensor, columns: Tensor | int) -> Tensor:
        return scale_index(self.options.granularity, self.shape, rows, columns)

    def round_column(self, column: int, values: Tensor) -> Tensor:
        """The values ``[rows]`` of a column as they decode, float32."""
        return self.round(self._rows, column, values)

    def round(self, rows: Tensor, columns: Tensor | int, values: Tensor) -> Tensor:
        """What `values` at these places (that broadcast to their shape) decode to, float32."""
        ids = self._ids(rows, columns)
        if self._binary is not None:
            sums, codes = self._nearest_sums(ids, values)
            return sums.gather(-1, codes[..., None])[..., 0].float()
        scales = self._stored[ids]
        scaled = values.float() / scales
        if self._zero is None:
            return self._level.round(scaled) * scales
        zero = self._zero[ids]
        return (self._level.round(scaled.round() + zero) - zero) * scales

    def _nearest_sums(self, ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        assert self._binary is not None
        bits = self._binary.bits
        codes = torch.arange(1 << bits, device=values.device)
        planes = torch.arange(bits, device=values.device)
        signs = (2 * ((codes >> planes[:, None]) & 1) - 1).double()
        sums = (self._stored[ids].double() @ signs).expand(*values.shape, 1 << bits)
        return sums, (sums - values.double()[..., None]).abs().argmin(-1)

    def clipping(self, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        """How far values lie outside of what the format reaches; 0 where under half a step."""
        ids = self._ids(rows, columns)
        if self._binary is not None:
            scales = self._stored[ids].double()
            beyond = values.abs() - scales.sum(-1)
            return beyond * (beyond > scales.amin(-1))
        scales = self._stored[ids].double()
        zero = 0.0 if self._zero is None else self._zero[ids].double()
        return self._level.clipping(values.double() / scales + zero) * scales

    def finish(
        self, values: Tensor, sparsity: Sparsity | None, mask: Mask | None
    ) -> CompressedTensor:
        """The tensor whose decoding is `values`, which this quantizer rounded.

        Args:
            values: ``[rows, columns]``; what `mask` leaves out does not matter.
            sparsity: what is stored; None for everything.
            mask: a complete mask for `sparsity`.
        """
        granularity, exact = self.options.granularity, self._exact
        shape = (*self._scale_shape, *exact.shape[1:])
        scales = store_scales(exact.reshape(shape), self.options.scale_storage)
        codes = np.empty(self.shape, np.uint8)
        zero_points = None
        if self._zero is not None:
            zero_points = self._format.encode(self._zero.cpu().numpy()).reshape(self._scale_shape)
        with one_thread():
            for column in range(self.shape[1]):
                codes[:, column] = self._codes_of(column, values[:, column])
        return CompressedTensor.from_codes(
            codes, self._format, granularity, scales,
            sparsity=sparsity, mask=mask, zero_points=zero_points,
        )  # fmt: skip

    def _codes_of(self, column: int, values: Tensor) -> np.ndarray:
        ids = self._ids(self._rows, column)
        if self._binary is not None:
            return self._nearest_sums(ids, values)[1].cpu().numpy().astype(np.uint8)
        scaled = values.float() / self._stored[ids]
        if self._zero is not None:
            scaled = scaled.round() + self._zero[ids]
        return self._format.encode(scaled.cpu().numpy())
