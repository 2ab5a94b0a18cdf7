"""The number formats that recipes can use, for ``fewbits formats``."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FormatInfo:
    """One row: name, bits per value, what it is used for, one line of description."""

    name: str
    bits: int
    used_for: str
    description: str


FORMATS: tuple[FormatInfo, ...] = (
    FormatInfo("float32", 32, "anything", "layers that stay float"),
    FormatInfo(
        "int8", 8, "activations", "affine per tensor, -128..127, zero exactly representable"
    ),
    FormatInfo("int8-narrow", 8, "weights", "symmetric per output channel or tensor, -127..127"),
    FormatInfo("int32", 32, "biases", "in accumulator steps; zero points and rounding folded in"),
)
