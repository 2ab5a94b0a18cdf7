"""Floats of 2 to 8 bits: any exponent/mantissa split, real bias, four rules for special codes.

FP8 (spec 13, Micikevicius et al. 2022), the OCP FP6 and FP4 types, and the flexible-bias floats of
spec 9 (Kuzmin et al. 2022) are one family: a sign, E exponent bits, M mantissa bits, subnormals,
and ``value = 2**(field - bias) * (1 + mantissa / 2**M)``. With E = 1 it is the uniform grid.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import Codes, Grid, NumberFormat, Reals, check_bits, in_chunks, make_grid, refuse_nan

Specials = Literal["finite", "ieee", "fn", "fnuz"]

_TEXT = re.compile(
    r"(u?)fp(\d)_e(\d)m(\d)(?:b(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?))?"
    r"(fnuz|fn|-ieee|-finite)?(-overflow)?"
)
# Eight-bit types whose bare name is taken by the IEEE-like kind, as in ONNX and ml_dtypes.
_IEEE_BY_NAME = frozenset({(5, 2), (4, 3), (3, 4)})


@dataclasses.dataclass(frozen=True)
class Float(NumberFormat):
    """``fp8_e4m3fn``, ``fp8_e5m2``, ``fp6_e3m2``, ``fp4_e2m1``, ``fp8_e2m5b1.25``, ``ufp8_e4m4``.

    Attributes:
        exponent_bits: E, at least 1.
        mantissa_bits: M.
        bias: real; None for ``2**(E-1) - 1`` (``2**(E-1)`` for fnuz).
        specials: ``finite``: every code is a number. ``ieee``: the top exponent holds infinity and
            NaNs. ``fn``: only the code of all ones is NaN. ``fnuz``: only the code of −0 is NaN.
            None for what the bare name means: ``ieee`` for E5M2, E4M3 and E3M4, else ``finite``.
        signed: has a sign bit.
        saturate: what overflows becomes the largest number, as ONNX's default; otherwise infinity
            (``ieee``) or NaN.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: float | None = None
    specials: Specials | None = None
    signed: bool = True
    saturate: bool = True
    bits: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        if e < 1 or m < 0:
            raise FewbitsError("bad-format", "a float has at least one exponent bit")
        object.__setattr__(self, "bits", self.signed + e + m)
        check_bits(self.bits, 2, 8, "float")
        specials = self.specials or self._usual_specials()
        object.__setattr__(self, "specials", specials)
        if specials == "ieee" and (e < 2 or m < 1):
            raise FewbitsError("bad-format", "an IEEE-like float has E >= 2 and M >= 1")
        if specials == "fnuz" and not self.signed:
            raise FewbitsError("bad-format", "fnuz keeps its NaN in the code of -0: it is signed")
        if specials == "finite" and not self.saturate:
            raise FewbitsError("bad-format", "without special codes a float can only saturate")
        bias = self._usual_bias() if self.bias is None else float(self.bias)
        if not abs(bias) <= 512:
            raise FewbitsError("bad-format", f"the bias of a float is within +-512, not {bias}")
        object.__setattr__(self, "bias", bias)

    @classmethod
    def covering(
        cls, maximum: float, bits: int, mantissa_bits: int, *, signed: bool = True
    ) -> Float:
        """The float without special codes whose largest level is `maximum` (spec 9)."""
        if not (math.isfinite(maximum) and maximum > 0):
            raise FewbitsError("bad-format", f"a float cannot cover up to {maximum}")
        e = bits - signed - mantissa_bits
        bias = 2.0**e - math.log2(maximum) + math.log2(2 - 2.0**-mantissa_bits) - 1
        return cls(e, mantissa_bits, bias, "finite", signed)

    @classmethod
    def parse(cls, text: str) -> Float | None:
        """The format called `text`, or None where that is no float's name."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        signed, e, m = not match[1], int(match[3]), int(match[4])
        if signed + e + m != int(match[2]):
            raise FewbitsError(
                "bad-format",
                f"{text}: sign, exponent and mantissa bits do not add up to {match[2]}",
            )
        bias = None if match[5] is None else float(match[5])
        specials: dict[str | None, Specials | None] = {
            None: None, "fn": "fn", "fnuz": "fnuz", "-ieee": "ieee", "-finite": "finite",
        }  # fmt: skip
        return cls(e, m, bias, specials[match[6]], signed, saturate=match[7] is None)

    @property
    def name(self) -> str:
        """The text form; the bias and the rule for specials only where they are not the usual."""
        text = f"{'' if self.signed else 'u'}fp{self.bits}"
        text += f"_e{self.exponent_bits}m{self.mantissa_bits}"
        if self.bias != self._usual_bias():
            text += f"b{self.bias:.17g}"
        if self.specials in ("fn", "fnuz"):
            text += self.specials
        elif self.specials != self._usual_specials():
            text += f"-{self.specials}"
        return text + ("" if self.saturate else "-overflow")

    @property
    def has_nan(self) -> bool:
        """Whether some code is NaN."""
        return self.specials != "finite"

    def values(self) -> npt.NDArray[np.float64]:
        """The real of each code, sign bit on top."""
        magnitudes = self._magnitudes(1 << (self.bits - self.signed))
        top = magnitudes.size
        if self.specials == "ieee":
            top -= 1 << self.mantissa_bits
            magnitudes[top], magnitudes[top + 1 :] = np.inf, np.nan
        elif self.specials == "fn":
            magnitudes[-1] = np.nan
        if not self.signed:
            return magnitudes
        negative = -magnitudes
        if self.specials == "fnuz":
            negative[0] = np.nan
        return np.concatenate([magnitudes, negative])

    def encode(self, x: npt.ArrayLike) -> Codes:
        """Nearest codes, ties to the even mantissa; overflow as `saturate` says; keeps −0 and NaN.

        Raises:
            FewbitsError: ``not-a-number`` for a NaN where no code is NaN.
        """
        grid, nan = _magnitude_grid(self), self._nan_code()

        def nearest(part: Reals) -> Codes:
            if not self.signed:
                part = np.where(part < 0, 0.0, part)
            codes = grid.codes[np.searchsorted(grid.thresholds, np.abs(part))]
            if self.signed:
                sign = np.signbit(part).astype(np.uint8) << np.uint8(self.bits - 1)
                if self.specials == "fnuz":
                    sign[(codes == 0) | (codes == nan)] = 0
                codes |= sign
            if nan is None:
                refuse_nan(part, self.name)
            else:
                codes[np.isnan(part)] = nan
            return codes

        return in_chunks(nearest, x)

    def _usual_bias(self) -> float:
        return float(2 ** (self.exponent_bits - 1) - (self.specials != "fnuz"))

    def _usual_specials(self) -> Specials:
        split = (self.exponent_bits, self.mantissa_bits)
        return "ieee" if self.signed and split in _IEEE_BY_NAME else "finite"

    def _magnitudes(self, count: int) -> npt.NDArray[np.float64]:
        """The reals of the first `count` codes, as if none was special."""
        assert self.bias is not None
        field, mantissa = np.divmod(np.arange(count), 1 << self.mantissa_bits)
        significand = mantissa + (field > 0) * float(1 << self.mantissa_bits)
        return significand * 2.0 ** (np.maximum(field, 1) - self.bias - self.mantissa_bits)

    def _nan_code(self) -> int | None:
        size = 1 << (self.bits - self.signed)
        if self.specials == "ieee":
            return size - (1 << (self.mantissa_bits - 1))
        return {"fn": size - 1, "fnuz": size}.get(str(self.specials))


@functools.lru_cache(maxsize=256)
def _magnitude_grid(number_format: Float) -> Grid:
    """Magnitudes and their codes; without saturation one level more, where overflow rounds to."""
    half = number_format.values()[: 1 << (number_format.bits - number_format.signed)]
    count = int(np.isfinite(half).sum())
    levels = half[:count]
    codes = np.arange(count)
    if number_format.saturate:
        return make_grid(levels, codes)
    grid = make_grid(number_format._magnitudes(count + 1), np.arange(count + 1))
    overflow = count if number_format.specials == "ieee" else number_format._nan_code()
    assert overflow is not None
    grid.codes[count] = overflow
    return grid
