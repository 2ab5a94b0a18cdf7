"""Nearest levels on tensors: `NumberFormat.encode` and `decode` in one, where the solver runs.

The loops of the solvers round millions of values a column at a time, on whichever device the
weights are; the formats' own encoder is numpy. Ties fall as they do there.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...errors import FewbitsError
from ...formats.base import NumberFormat
from ...formats.floating import Float
from ...formats.integer import Integer


class NearestLevel:
    """Rounds values, already divided by their scale, to the levels of a format.

    For finite `x`, ``encode(round(x).numpy())`` is ``encode(x.numpy())``.
    """

    def __init__(self, number_format: NumberFormat, device: torch.device | str = "cpu") -> None:
        """Make the tables of `number_format` on `device`.

        Raises:
            FewbitsError: ``bad-solver`` for a float that overflows to infinity or NaN, which
                error feedback could reach.
        """
        if isinstance(number_format, Float) and not number_format.saturate:
            raise FewbitsError(
                "bad-solver", f"{number_format} overflows to infinity or NaN",
                hint="weights take the saturating kind, without the suffix -overflow",
            )  # fmt: skip
        levels = number_format.levels()
        self.lowest, self.highest = float(levels[0]), float(levels[-1])
        #: Half the distance between the outermost levels: beyond it a value counts as clipped.
        self.margin = (
            float((levels[1] - levels[0]) / 2) if levels.size > 1 else 0.0,
            float((levels[-1] - levels[-2]) / 2) if levels.size > 1 else 0.0,
        )
        self._uniform = isinstance(number_format, Integer)
        # -0 is a code of its own in floats: they are rounded by magnitude.
        self._by_magnitude = isinstance(number_format, Float) and number_format.signed
        if self._by_magnitude:
            levels = levels[levels >= 0]
        middles = levels[:-1] + (levels[1:] - levels[:-1]) / 2
        goes_up = number_format.encode(middles) == number_format.encode(levels[1:])
        thresholds = np.where(goes_up, np.nextafter(middles, -np.inf), middles)
        self._thresholds = torch.from_numpy(thresholds).to(device)
        self._levels = torch.from_numpy(levels.astype(np.float32)).to(device)

    def round(self, x: Tensor) -> Tensor:
        """The nearest levels of `x`, float32, in its shape."""
        if self._uniform:
            return x.float().round().clamp_(self.lowest, self.highest)
        if self._by_magnitude:
            index = torch.bucketize(x.abs().double(), self._thresholds)
            return torch.copysign(self._levels[index], x.float())
        return self._levels[torch.bucketize(x.double(), self._thresholds)]

    def clipping(self, x: Tensor) -> Tensor:
        """How far `x` lies beyond the outermost levels, 0 where less than half a step."""
        below = (self.lowest - x) * (x < self.lowest - self.margin[0])
        above = (x - self.highest) * (x > self.highest + self.margin[1])
        return below + above
