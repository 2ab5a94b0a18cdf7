"""Integers as bit planes packed along K, and what a plane is worth (APNN-TC, spec 18).

An integer is ``offset + Σ_s weight_s · bit_s``. So a product of two of them is a sum of counts of
common bits, ``popc(x_s AND w_t)``, times constants; where an offset is not zero, counts of the
other side's bits come on top. Nothing but AND is needed, also for codes of ±1.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from tvm import tirx

#: Bits of a packed plane are filled up to whole copies of 16 bytes.
CHUNK_BITS = 128

Kind = Literal["unsigned", "signed", "odd"]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What the bits of a code mean.

    Attributes:
        bits: planes, 1 to 8.
        kind: ``unsigned``: 0 and up. ``signed``: two's complement. ``odd``: a sum of ±1, ±2,
            ±4 ..., so that one bit is ±1.
    """

    bits: int
    kind: Kind

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"{self.bits} planes, not 1 to 8")

    @property
    def key(self) -> str:
        """``unsigned2``."""
        return f"{self.kind}{self.bits}"

    @property
    def weights(self) -> tuple[int, ...]:
        """What a set bit of each plane adds, the lowest plane first."""
        powers = [1 << plane for plane in range(self.bits)]
        if self.kind == "signed":
            powers[-1] = -powers[-1]
        if self.kind == "odd":
            powers = [2 * power for power in powers]
        return tuple(powers)

    def weight(self, plane: Any) -> Any:
        """The same of an int32 expression."""
        power = tirx.const(2 if self.kind == "odd" else 1, "int32") << plane
        if self.kind != "signed":
            return power
        return tirx.if_then_else(plane == self.bits - 1, -power, power)

    @property
    def offset(self) -> int:
        """The integer whose bits are all 0."""
        return 1 - (1 << self.bits) if self.kind == "odd" else 0

    @property
    def minimum(self) -> int:
        """The smallest integer."""
        return self.offset + sum(weight for weight in self.weights if weight < 0)

    @property
    def maximum(self) -> int:
        """The largest integer."""
        return self.offset + sum(weight for weight in self.weights if weight > 0)

    def code(self, value: Any) -> Any:
        """The bits of an int32 expression in range, the rest of the word undefined."""
        if self.kind != "odd":
            return value
        return (value - self.offset) >> tirx.const(1, "int32")

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The bits of integers, uint8.

        Raises:
            ValueError: an integer has no code.
        """
        values = np.asarray(values, np.int64)
        codes = (values - self.offset) // (2 if self.kind == "odd" else 1)
        codes = codes & ((1 << self.bits) - 1)
        if not np.array_equal(self.integers(codes), values):
            raise ValueError(f"not all are integers of {self.key}")
        return codes.astype(np.uint8)

    def integers(self, codes: np.ndarray) -> np.ndarray:
        """int64 of codes."""
        planes = np.asarray(codes, np.int64)[..., None] >> np.arange(self.bits) & 1
        return planes.astype(np.int64) @ np.array(self.weights, np.int64) + self.offset

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Planes uint32 [..., bits, words(K)] of integers [..., K]; what fills up is 0.

        Bit b of word j of a plane belongs to the integer 32 j + b.
        """
        codes = self.codes(values)
        planes = codes[..., None, :] >> np.arange(self.bits, dtype=np.uint8)[:, None] & 1
        more = 32 * words(codes.shape[-1]) - codes.shape[-1]
        planes = np.pad(planes, [(0, 0)] * (planes.ndim - 1) + [(0, more)])
        packed = np.packbits(planes, axis=-1, bitorder="little")
        return np.ascontiguousarray(packed).view("<u4")

    def unpack(self, planes: np.ndarray, length: int) -> np.ndarray:
        """int64 [..., length] of packed planes."""
        packed = np.ascontiguousarray(planes).view(np.uint8)
        bits = np.unpackbits(packed, axis=-1, count=length, bitorder="little")
        return self.integers((bits << np.arange(self.bits, dtype=np.uint8)[:, None]).sum(-2))


def words(length: int) -> int:
    """Words of 32 bits that a plane of so many bits takes."""
    return -(-length // CHUNK_BITS) * (CHUNK_BITS // 32)
