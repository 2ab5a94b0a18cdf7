"""The number formats there are, for ``fewbits formats``: those of recipes, then the library's."""

from __future__ import annotations

import dataclasses

from .parse import parse_format

# Not yet in recipes and targets: `fewbits.formats` compresses and decodes them.
LIBRARY = "Python library"


@dataclasses.dataclass(frozen=True)
class FormatInfo:
    """One row: name, bits per value, what it is used for, one line of description."""

    name: str
    bits: int
    used_for: str
    description: str


_LIBRARY = {
    "int4": "integers -8..7; any width 2 to 8, also uint4 and int4-narrow (-7..7)",
    "fp8_e4m3fn": "FP8 E4M3 up to 448, NaN but no infinity; also fp8_e4m3fnuz, fp8_e4m3",
    "fp8_e5m2": "FP8 E5M2 up to 57344, infinity and NaN; also fp8_e5m2fnuz",
    "fp8_e2m5b1.25": "any float of 2 to 8 bits with a real bias; ufp8_e4m4 has no sign",
    "fp6_e3m2": "OCP FP6 up to 28; fp6_e2m3 up to 7.5",
    "fp4_e2m1": "OCP FP4: 0, .5, 1, 1.5, 2, 3, 4, 6",
    "fp4-bnb": "the 4-bit float of bitsandbytes, not the OCP one",
    "nf4": "NormalFloat: quantiles of a normal distribution, 0 exact",
    "af4": "least absolute error for normal blocks of 64",
    "quantile4": "quantiles of a normal distribution, 1 to 8 bits, no 0",
    "dynamic8": "dynamic tree over seven decades, 4 to 8 bits; udynamic8 has no sign",
    "flint4": "integers near 0, powers of two far from it; 3 to 8 bits, also uflint4",
    "pot4": "0 and powers of two, 3 to 6 bits; also upot4",
    "log8x16": "0 and powers of 2^(1/16), 3 to 8 bits, any number of steps an octave",
    "bcq3": "binary coding: scales per bit plane fitted to each group, 1 to 8 bits",
}

FORMATS: tuple[FormatInfo, ...] = (
    FormatInfo("float32", 32, "anything", "layers that stay float"),
    FormatInfo(
        "int8", 8, "activations", "affine per tensor, -128..127, zero exactly representable"
    ),
    FormatInfo("int8-narrow", 8, "weights", "symmetric per output channel or tensor, -127..127"),
    FormatInfo("int32", 32, "biases", "in accumulator steps; zero points and rounding folded in"),
    *(
        FormatInfo(name, parse_format(name).bits, LIBRARY, description)
        for name, description in _LIBRARY.items()
    ),
)
