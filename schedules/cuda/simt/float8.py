"""FP8 numbers as float32, by integer arithmetic.

Where a generation has no instruction for it, TVM writes shifts of 8-bit numbers, and C makes 32-bit
numbers of those first: signs end up in exponents. Here everything is 32 bits wide from the start.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx

_MAGNITUDE = 0x7F


@dataclasses.dataclass(frozen=True)
class Format:
    """Where a format's bits go in a float32, and what its largest codes mean.

    Attributes:
        shift: of exponent and mantissa, so that they meet float32's.
        power: float32's bias less the format's: what the result is to be multiplied by.
        infinity: the code of infinity, or of the first NaN where there is none.
        has_infinity: whether there is one.
    """

    shift: int
    power: int
    infinity: int
    has_infinity: bool


#: By dtype (Open Compute Project, 8-bit floating point specification).
FORMATS = {
    "float8_e4m3fn": Format(shift=20, power=120, infinity=0x7F, has_infinity=False),
    "float8_e5m2": Format(shift=21, power=112, infinity=0x7C, has_infinity=True),
}


def decoded(dtype: str, code: Any) -> Any:
    """The float32 number that an FP8 code, a uint8 expression, stands for.

    Subnormal codes become subnormal float32 numbers first; the product makes them normal, exactly.
    """
    made = FORMATS[dtype]
    bits = tirx.Cast("uint32", code)
    magnitude = bits & tirx.const(_MAGNITUDE, "uint32")
    sign = (bits & tirx.const(0x80, "uint32")) << tirx.const(24, "uint32")
    small = tirx.reinterpret("float32", sign | magnitude << tirx.const(made.shift, "uint32"))
    number = small * tirx.const(2.0**made.power, "float32")
    first = tirx.const(made.infinity, "uint32")
    infinity = tirx.reinterpret("float32", sign | tirx.const(0x7F800000, "uint32"))
    nan = tirx.const(float("nan"), "float32")
    if not made.has_infinity:
        return tirx.Select(magnitude == first, nan, number)
    special = tirx.Select(magnitude == first, infinity, nan)
    return tirx.Select(magnitude < first, number, special)
