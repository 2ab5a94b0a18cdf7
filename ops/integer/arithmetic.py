"""Requantization: from an int32 accumulator to int8, defined to the bit.

After Jacob et al. 2018 (spec 0.4, 7) with everything constant folded into one bias: input zero
point, bias, output zero point and the rounding half. One high-half multiply replaces the rounding
doubling multiply and rounding shift of gemmlowp.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from ...errors import FewbitsError

INT32 = 2**31
#: Above this scale the accumulator is shifted left first, to keep the error under 1/100 LSB.
LARGEST_SCALE = 1.0 / 64.0


def requantize(
    accumulator: torch.Tensor,
    bias: torch.Tensor | int,
    multiplier: torch.Tensor | int,
    shift: int,
    minimum: int,
    maximum: int,
) -> torch.Tensor:
    """``clamp((((acc << shift) + bias) * multiplier) >> 32)`` in int64, as int8.

    `accumulator` is int64 of any shape; `bias` and `multiplier` broadcast against it.
    """
    total = torch.bitwise_left_shift(accumulator, shift) + bias
    scaled = torch.bitwise_right_shift(total * multiplier, 32)
    return scaled.clamp(minimum, maximum).to(torch.int8)


@dataclasses.dataclass(frozen=True)
class Requantization:
    """The integers that stand for a real scale per channel: see `requantization`."""

    multiplier: np.ndarray
    bias: np.ndarray
    shift: int


def requantization(
    scale: np.ndarray,
    offset: np.ndarray,
    accumulator_bound: np.ndarray,
    where: str | None = None,
) -> Requantization:
    """Integers such that requantizing computes ``round(scale * acc + offset)``, half upwards.

    Args:
        scale: positive reals [n], accumulator to output steps.
        offset: reals [n] in output steps: output zero point plus the scaled bias and corrections.
        accumulator_bound: integers [n], the largest absolute accumulator that can occur.
        where: the layer, for the error.

    Raises:
        FewbitsError: ``accumulator-overflow`` when int32 cannot hold what may occur.
    """
    scale = np.asarray(scale, np.float64)
    largest = float(scale.max())
    shift = 0
    while math.ldexp(largest, -shift) > LARGEST_SCALE:
        shift += 1
    step = np.ldexp(scale, -shift)
    multiplier = np.rint(np.ldexp(step, 32))
    if (multiplier < 1).any():
        raise FewbitsError(
            "scale-too-small",
            f"an output scale is so large that the factor {float(scale.min()):.3g} vanishes",
            where=where,
            hint="recalibrate, or keep this layer float with `ignore`",
        )
    # The bias is rounded in units of the accumulator, as the multiplier will see it.
    exact = np.ldexp(multiplier, -32)
    bias = np.rint((np.asarray(offset, np.float64) + 0.5) / exact)
    bound = np.ldexp(np.asarray(accumulator_bound, np.float64), shift) + np.abs(bias)
    if (bound >= INT32).any():
        raise FewbitsError(
            "accumulator-overflow",
            f"the accumulator may reach {bound.max():.3g}, beyond 32 bits",
            where=where,
            hint="use a coarser weight scale, or keep this layer float with `ignore`",
        )
    return Requantization(multiplier.astype(np.int32), bias.astype(np.int32), shift)


def integers(tensor: torch.Tensor) -> torch.Tensor:
    """As int64, in which every sum and product of the dialect is exact."""
    return tensor.to(torch.int64)


def exact_reals(tensor: torch.Tensor) -> torch.Tensor:
    """As float64, in which sums of int8 products are exact (torch has no int32 convolution)."""
    return tensor.to(torch.float64)
