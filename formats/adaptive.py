"""ANT's choice: each tensor takes the number type with the least squared error (spec 8).

One type per tensor, so that hardware decodes one type, but a scale per row. Flint wins on Laplace-
and Student-like tensors, integers on normal and uniform ones: the choice is the point, so it is
returned with every candidate's error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import NumberFormat
from .compressed import CompressedTensor
from .flint import Flint, PowerOfTwo
from .granularity import Granularity, PerTensor
from .integer import Integer
from .scales import ScaleStorage, searched_scales, store_scales


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptiveChoice:
    """The tensor in the best of the candidates, and how each of them did.

    Attributes:
        tensor: in the chosen format.
        errors: summed squared error by format name, in the order of the candidates.
    """

    tensor: CompressedTensor
    errors: dict[str, float]


def ant_candidates(bits: int, *, signed: bool = True) -> tuple[NumberFormat, ...]:
    """Integer, power of two and flint; above 6 bits only the integer, as published."""
    integer = Integer(bits, signed)
    if bits > 6 or bits < 3:
        return (integer,)
    if bits > 5 and not signed:
        return (integer, Flint(bits, signed))
    return (integer, PowerOfTwo(bits, signed), Flint(bits, signed))


def compress_adaptive(
    x: npt.ArrayLike,
    candidates: Sequence[NumberFormat],
    *,
    granularity: Granularity | None = None,
    scale_storage: ScaleStorage = "float32",
    low: float = 0.75,
    high: float = 1.5,
    step: float = 0.01,
) -> AdaptiveChoice:
    """`x` in the candidate whose scales, searched per row, leave the least summed error.

    Args:
        x: finite reals of any shape.
        candidates: formats to try; see `ant_candidates`. The first wins a tie.
        granularity: rows with their own scale; the published weights have one per output channel.
        scale_storage: see `StoredScales`.
        low, high, step: multiples of the absmax scale to try (published: low 1 for 6 bits, 0.95
            above).
    """
    values = np.asarray(x, np.float32)
    if not np.isfinite(values).all():
        raise FewbitsError("not-a-number", "the tensor has NaN or infinite values")
    if not candidates:
        raise FewbitsError("bad-format", "no candidate formats")
    if any(not c.signed for c in candidates) and values.size and values.min() < 0:
        raise FewbitsError("unsigned-format", "an unsigned candidate for a tensor with negatives")
    granularity = granularity or PerTensor()
    rows = granularity.rows(values)
    found = [searched_scales(rows, c, low=low, high=high, step=step) for c in candidates]
    errors = {c.name: float(e.sum()) for c, (_, e) in zip(candidates, found, strict=True)}
    best = min(range(len(candidates)), key=lambda i: errors[candidates[i].name])
    scales = store_scales(
        found[best][0].reshape(granularity.scale_shape(values.shape)), scale_storage
    )
    with np.errstate(over="ignore"):
        codes = candidates[best].encode(rows / scales.values().reshape(-1, 1))
    tensor = CompressedTensor.from_codes(
        granularity.from_rows(codes, values.shape), candidates[best], granularity, scales
    )
    return AdaptiveChoice(tensor, errors)
