"""Binary coding: a weight as a signed sum of a few scales, one bit each (spec 5, LUT-GEMM).

``w ≈ sum_i a[i] * (2 * bit_i - 1)`` with the scales ``a`` fitted per group. A matrix-vector product
needs only sums of activations with signs, which a lookup table holds. Uniform integers are the
special case of scales that double, plus an offset.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import Codes, NumberFormat, check_bits
from .integer import Integer

_TEXT = re.compile(r"bcq(\d{1,2})")
Floats = npt.NDArray[np.floating]


@dataclasses.dataclass(frozen=True)
class BinaryCoding(NumberFormat):
    """``bcq3``. As a table, without fitted scales, it is the odd integers below ``2**bits``.

    Attributes:
        bits: number of binary planes, 1 to 8; bit i of a code belongs to scale i.
    """

    bits: int = 3
    signed: bool = dataclasses.field(init=False, default=True)

    def __post_init__(self) -> None:
        check_bits(self.bits, 1, 8, "binary coding")

    @classmethod
    def parse(cls, text: str) -> BinaryCoding | None:
        """The format called `text`, or None where that is no binary coding."""
        match = _TEXT.fullmatch(text)
        return None if match is None else cls(int(match[1]))

    @property
    def name(self) -> str:
        """``bcq3``."""
        return f"bcq{self.bits}"

    def values(self) -> npt.NDArray[np.float64]:
        """Sums of ±1, ±2, ±4, ... by code."""
        return self.sums(2.0 ** np.arange(self.bits)).astype(np.float64)

    def sums(self, scales: npt.ArrayLike) -> Floats:
        """The reals of all codes for fitted `scales` ``[..., bits]``: ``[..., 2**bits]``."""
        return np.asarray(scales, np.float64) @ _signs(self.bits)


def _signs(bits: int) -> Floats:
    """±1 of each plane in each code, ``[bits, 2**bits]``."""
    codes = np.arange(1 << bits)
    return 2.0 * ((codes >> np.arange(bits)[:, None]) & 1) - 1


def fit_binary(
    rows: npt.ArrayLike,
    bits: int,
    *,
    importance: npt.ArrayLike | None = None,
    rounds: int = 15,
) -> tuple[Floats, Codes]:
    """Scales and codes of each row by least squares.

    Greedy first (sign of what is left, then its mean magnitude), then `rounds` alternations:
    scales from codes by weighted least squares, codes from scales by nearest sum. The best round
    of each row is kept, so more rounds are never worse; 0 rounds is the greedy solution.

    Args:
        rows: ``[groups, length]``.
        bits: planes, 1 to 8.
        importance: weights ``[groups, length]``, not negative; 0 where a value does not matter.
        rounds: alternations.

    Returns:
        Scales ``[groups, bits]`` descending, not negative, and codes ``[groups, length]``.

    Raises:
        FewbitsError: ``not-a-number`` where a row holds NaN or infinity.
    """
    check_bits(bits, 1, 8, "binary coding")
    w = np.asarray(rows, np.float64)
    if not np.isfinite(w).all():
        raise FewbitsError("not-a-number", "binary coding cannot fit NaN or infinity")
    d = np.ones_like(w) if importance is None else np.asarray(importance, np.float64)
    largest = np.abs(w).max(axis=1, initial=0.0, keepdims=True)
    # Rows of any magnitude are fitted as rows of magnitude 1.
    unit = np.where(largest > 0, largest, 1.0)
    w = w / unit
    scales = _greedy(w, d, bits)
    codes, error = _assign(w, d, scales)
    best_scales, best_codes, best_error = scales, codes, error
    for _ in range(rounds):
        scales = _solve(w, d, codes, bits)
        codes, error = _assign(w, d, scales)
        better = error < best_error
        if not better.any():
            break
        best_scales = np.where(better[:, None], scales, best_scales)
        best_codes = np.where(better[:, None], codes, best_codes)
        best_error = np.where(better, error, best_error)
    return best_scales * unit, best_codes


def integer_to_binary(
    codes: npt.ArrayLike, scale: npt.ArrayLike, zero_point: npt.ArrayLike, integer: Integer
) -> tuple[Floats, Floats, Codes]:
    """The same values as binary coding, exactly: ``scale * (q - zero_point)`` in other words.

    Args:
        codes: codes of `integer`.
        scale: any shape.
        zero_point: integers, broadcast with `scale`.
        integer: what the codes mean.

    Returns:
        Scales ``[..., bits]`` (plane i weighs ``scale * 2**(i-1)``), offsets ``[...]`` to add to
        the signed sum, and codes in the shape of `codes`.
    """
    half = 1 << (integer.bits - 1) if integer.signed else 0
    s, z = np.broadcast_arrays(np.asarray(scale, np.float64), np.asarray(zero_point, np.float64))
    scales = s[..., None] * 2.0 ** (np.arange(integer.bits) - 1)
    planes = (np.asarray(codes) ^ half).astype(np.uint8)
    # sum of scales is s * (2**bits - 1) / 2
    offsets = s * ((2**integer.bits - 1) / 2 - half - z)
    return scales, offsets, planes


def _greedy(w: Floats, d: Floats, bits: int) -> Floats:
    rest, scales = w.copy(), []
    total = np.maximum(d.sum(axis=1), np.finfo(float).tiny)
    for _ in range(bits):
        scale = (np.abs(rest) * d).sum(axis=1) / total
        rest -= np.where(rest < 0, -1.0, 1.0) * scale[:, None]
        scales.append(scale)
    return np.stack(scales, axis=1)


def _solve(w: Floats, d: Floats, codes: Codes, bits: int) -> Floats:
    """Least squares for the scales given the codes; equal planes share by the pseudo-inverse."""
    planes = [2.0 * ((codes >> i) & 1) - 1 for i in range(bits)]
    gram = np.empty((w.shape[0], bits, bits))
    right = np.empty((w.shape[0], bits))
    for i, a in enumerate(planes):
        weighted = a * d
        right[:, i] = (weighted * w).sum(axis=1)
        for j in range(i, bits):
            gram[:, i, j] = gram[:, j, i] = (weighted * planes[j]).sum(axis=1)
    solved = np.linalg.pinv(gram, hermitian=True) @ right[..., None]
    return -np.sort(-np.abs(solved[..., 0]), axis=1)


def _assign(w: Floats, d: Floats, scales: Floats) -> tuple[Codes, Floats]:
    """Codes of the nearest sums and the weighted squared error per row."""
    sums = BinaryCoding(scales.shape[1]).sums(scales)
    order = np.argsort(sums, axis=1, kind="stable")
    ranked = np.take_along_axis(sums, order, axis=1)
    middles = (ranked[:, 1:] + ranked[:, :-1]) / 2
    rank = np.zeros(w.shape, np.intp)
    for k in range(middles.shape[1]):
        rank += w >= middles[:, k : k + 1]
    codes = np.take_along_axis(order, rank, axis=1).astype(np.uint8)
    error = (d * (np.take_along_axis(ranked, rank, axis=1) - w) ** 2).sum(axis=1)
    return codes, error
