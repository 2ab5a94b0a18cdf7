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
#: Above this factor the accumulator is shifted left first, to keep the error under 1/100 LSB.
LARGEST_FACTOR = 1.0 / 64.0


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


def requantization_shift(factor: np.ndarray) -> int:
    """How far to shift accumulators left so that every factor is at most 1/64."""
    shift = 0
    while math.ldexp(float(np.max(factor)), -shift) > LARGEST_FACTOR:
        shift += 1
    return shift


def requantization(
    factor: np.ndarray,
    offset: np.ndarray,
    zero_point: int,
    bound: np.ndarray,
    where: str | None = None,
) -> Requantization:
    """Integers that compute ``round(factor * (acc + offset)) + zero_point``, half upwards.

    Args:
        factor: positive reals [n], accumulator steps to output steps.
        offset: reals [n] in accumulator steps: bias and zero point corrections.
        zero_point: of the output.
        bound: integers [n], the largest absolute accumulator that can occur.
        where: the layer, for the error.

    Raises:
        FewbitsError: ``scale-too-small`` or ``accumulator-overflow`` when int32 cannot hold what
            may occur.
    """
    factor = np.asarray(factor, np.float64)
    shift = requantization_shift(factor)
    multiplier = np.rint(np.ldexp(factor, 32 - shift))
    if (multiplier < 1).any():
        raise FewbitsError(
            "scale-too-small",
            f"the output's scale is so large that the factor {float(factor.min()):.3g} vanishes",
            where=where,
            hint="recalibrate, or keep this layer float with `ignore`",
        )
    # In the units of the shifted accumulator, and as the rounded multiplier will see it.
    shifted = np.rint(np.ldexp(np.asarray(offset, np.float64), shift))
    bias = shifted + np.rint(np.ldexp((zero_point + 0.5) / multiplier, 32))
    reach = np.ldexp(np.asarray(bound, np.float64), shift) + np.abs(bias)
    if (reach >= INT32).any():
        raise FewbitsError(
            "accumulator-overflow",
            f"the accumulator may reach {float(reach.max()):.3g}, beyond 32 bits",
            where=where,
            hint="use a coarser weight scale, or keep this layer float with `ignore`",
        )
    return Requantization(multiplier.astype(np.int32), bias.astype(np.int32), shift)


def possible_requantization(
    factor: np.ndarray, offset: np.ndarray, zero_point: int, bound: np.ndarray
) -> Requantization | None:
    """`requantization`, or None where int32 cannot hold what may occur."""
    try:
        return requantization(factor, offset, zero_point, bound)
    except FewbitsError:
        return None


def integers(tensor: torch.Tensor) -> torch.Tensor:
    """As int64, in which every sum and product of the dialect is exact."""
    return tensor.to(torch.int64)


def exact_reals(tensor: torch.Tensor) -> torch.Tensor:
    """As float64, in which sums of int8 products are exact (torch has no int32 convolution)."""
    return tensor.to(torch.float64)
