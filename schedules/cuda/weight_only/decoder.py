"""From a lane's words of a chunk to the registers of `mma`'s A operand, for every format.

Integers: a code put into the mantissa of 2^10 (float16) or 2^7 (bfloat16) is that number plus the
code, shifted by as many bits as lie below it; one fused multiply-add takes both away, and the zero
point, exactly. Floats: exponent and mantissa are moved to where float16 has them, subnormals
included, and keep float16's bias; for bfloat16 one exact multiplication puts the bias right.
Tables: up to 16 levels are bytes in registers, which ``prmt`` selects by the code; larger ones lie
in shared memory.

Which shifted copies of a word are at hand is remembered over a chunk: pairs share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ....formats.floating import Float
from ....formats.parse import parse_format
from ..intrinsics.decode import Number, Words, pair
from .few_bit import FewBit

_MANTISSA: dict[str, int] = {"float16": 10, "bfloat16": 7}
#: The words of 2^10 and of 2^7 with all mantissa bits 0.
_MAGIC: dict[str, int] = {"float16": 0x64006400, "bfloat16": 0x43004300}


#: Selectors: two low bytes and two high bytes become two 16-bit numbers, the first or last two.
_LOW_PAIR, _HIGH_PAIR = 0x5140, 0x7362


@dataclasses.dataclass(frozen=True)
class Decoder:
    """How a layout's codes become numbers.

    Attributes:
        layout: of the weight.
        dtype: what the registers hold.
    """

    layout: FewBit
    dtype: Number

    def chunk(self, words: Words, lane: Sequence[Sequence[Any]]) -> Chunk:
        """A chunk that a lane holds.

        Args:
            words: the instructions.
            lane: its words, by plane.
        """
        return Chunk(self, words, lane)

    def constants(self) -> list[int]:
        """The levels' bytes, where instructions select among them."""
        if self.layout.kind != "table" or self.layout.bits > 4:
            return []
        starts = (0, 8) if self.layout.bits == 4 else (0,)
        table = self.table()
        found = [word for which in range(2) for at in starts for word in _bytes(table, which, at)]
        return list(dict.fromkeys(found))

    def table(self) -> np.ndarray:
        """uint16: bits of the levels, as `look_up` reads them."""
        kind = np.float16 if self.dtype == "float16" else ml_dtypes.bfloat16
        return self.layout.levels()[0].astype(kind).view(np.uint16)


class Chunk:
    """Decodes tiles of one chunk, in any order."""

    def __init__(self, decoder: Decoder, words: Words, lane: Sequence[Sequence[Any]]) -> None:
        self.layout = decoder.layout
        self.dtype: Number = decoder.dtype
        self._words, self._lane, self._decoder = words, lane, decoder
        self._shifted: dict[tuple[int, int, int], Any] = {}
        self._minus: dict[tuple[Any, int], Any] = {}

    def tile(self, number: int, zeros: Sequence[Any] | None = None) -> list[Any]:
        """The four registers of a tile, 0 to 3, of the chunk.

        Args:
            number: which tile.
            zeros: where the layout has zero points: those of the lane's first and second output,
                as words of two equal numbers of `dtype` (8 bits in bfloat16: as float32).
        """
        kind, bits = self.layout.kind, self.layout.bits
        if kind == "table" and bits == 4:
            return self._permuted(number)
        registers = []
        for register in range(4):
            place = 4 * number + register
            if kind == "integer":
                zero = None if zeros is None else zeros[register % 2]
                registers.append(self._integer(place, zero))
            elif kind == "float":
                registers.append(self._float(place))
            else:
                registers.append(self._looked_up(place))
        return registers

    def _integer(self, place: int, zero: Any) -> Any:
        """Code minus zero point."""
        bits, mantissa = self.layout.bits, _MANTISSA[self.dtype]
        if bits > mantissa:
            codes = self._gather(place, 0, bits, 0, 0)
            return self._words.widen(codes, float(self.layout.middle) if zero is None else zero)
        target = min(range(mantissa - bits + 1), key=lambda t: (self._cost(place, 0, bits, t), t))
        field = self._gather(place, 0, bits, target, _MAGIC[self.dtype])
        below = 2.0**-target
        return self._words.fma(
            self.dtype, field, pair(self.dtype, below), self._offset(zero, 2.0**mantissa * below)
        )

    def _offset(self, zero: Any, base: float) -> Any:
        """Minus the base and the zero point."""
        if zero is None:
            return pair(self.dtype, -(base + self.layout.middle))
        key = (id(zero), int(base))
        if key not in self._minus:
            minus_one, offset = pair(self.dtype, -1.0), pair(self.dtype, -base)
            self._minus[key] = self._words.fma(self.dtype, zero, minus_one, offset)
        return self._minus[key]

    def _float(self, place: int) -> Any:
        """Sign, exponent and mantissa at their places."""
        number_format = parse_format(self.layout.number_format)
        assert isinstance(number_format, Float)
        magnitude = self.layout.bits - number_format.signed
        target = _MANTISSA[self.dtype] - number_format.mantissa_bits
        over: Any = 0
        if number_format.signed:
            over = self._gather(place, magnitude, self.layout.bits, 15, 0)
        field = self._gather(place, 0, magnitude, target, over)
        if self.dtype == "float16":
            return field
        # bfloat16's bias is 127, what was moved has float16's.
        return self._words.fma("bfloat16", field, pair("bfloat16", 2.0**112), 0)

    def _looked_up(self, place: int) -> Any:
        """A level by code: from registers up to 8 levels, else from shared memory."""
        bits, words = self.layout.bits, self._words
        codes = self._gather(place, 0, bits, 0, 0)
        if bits > 4:
            return words.look_up(codes)
        selector = words.take(words.shift(codes, 12), 0xF0, codes)
        low, high = (
            words.permute(*_bytes(self._decoder.table(), which, 0), selector) for which in range(2)
        )
        return words.permute(low, high, _LOW_PAIR)

    def _permuted(self, number: int) -> list[Any]:
        """A word of eight codes through 16 levels: each byte of a level is selected twice.

        Both halves of the table are looked at, and the code's top bit selects between them.
        """
        words, word = self._words, self._lane[0][number]
        table = self._decoder.table()
        lower = words.take(word, 0x77777777, 0)
        upper = words.take(words.shift(word, 1), 0x44444444, 0x32103210)
        registers = []
        for half in range(2):
            if half:
                lower, upper = words.shift(lower, 16), words.shift(upper, 16)
            found = []
            for which in range(2):
                first = words.permute(*_bytes(table, which, 0), lower)
                second = words.permute(*_bytes(table, which, 8), lower)
                found.append(words.permute(first, second, upper))
            low, high = found
            registers += [words.permute(low, high, pair_) for pair_ in (_LOW_PAIR, _HIGH_PAIR)]
        return registers

    def _gather(self, place: int, low: int, high: int, target: int, over: Any) -> Any:
        """Bits `low` to `high` of a pair's codes at bit `target` of each half, over a word."""
        for number, plane in enumerate(self.layout.planes):
            first, last = max(low, plane.low), min(high, plane.low + plane.width)
            if first >= last:
                continue
            word, start = plane.places[place]
            to = target + first - low
            mask = ((1 << (last - first)) - 1) << to
            source = self._at(number, word, start + first - plane.low - to)
            over = self._words.take(source, mask << 16 | mask, over)
        return over

    def _cost(self, place: int, low: int, high: int, target: int) -> int:
        """How many shifts `_gather` would add."""
        count = 0
        for number, plane in enumerate(self.layout.planes):
            word, start = plane.places[place]
            right = start - (target + plane.low - low)
            count += right != 0 and (number, word, right) not in self._shifted
        return count

    def _at(self, plane: int, word: int, right: int) -> Any:
        """A word shifted to the right."""
        if right == 0:
            return self._lane[plane][word]
        key = (plane, word, right)
        if key not in self._shifted:
            self._shifted[key] = self._words.shift(self._lane[plane][word], right)
        return self._shifted[key]


def _bytes(table: np.ndarray, which: int, first: int) -> tuple[int, int]:
    """The low or high bytes of eight levels from `first` on, as two words; 0 beyond the table."""
    levels = np.zeros(16, np.uint16)
    levels[: table.size] = table
    found = ((levels[first : first + 8] >> np.uint16(8 * which)) & np.uint16(255)).astype(np.uint8)
    low, high = found.view("<u4")
    return int(low), int(high)
