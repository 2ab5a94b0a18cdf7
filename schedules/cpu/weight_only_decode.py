"""Decoders: from the words of a panel to float32 vectors, in registers.

A decoder is what a weight-only kernel knows of a format. It reads one code of every output of a
panel at a time; shifts are constants, since whole chunks are unrolled.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import broadcast, vector
from .intrinsics_emit import ramp
from .intrinsics_lookup import Lookup
from .weight_only_layout import chunk_of, words_of


@dataclasses.dataclass(frozen=True)
class Decoder(abc.ABC):
    """How stored words become values before scaling. Subclasses are frozen dataclasses."""

    @property
    @abc.abstractmethod
    def chunk(self) -> int:
        """Codes that a kernel unrolls."""

    @abc.abstractmethod
    def words(self, count: int) -> int:
        """Vectors in which `count` codes from a chunk's start are stored."""

    @property
    @abc.abstractmethod
    def dtype(self) -> str:
        """Type of a stored word."""

    @abc.abstractmethod
    def load(self, stored: Any, panel: Any, word: Any, count: int, lanes: int) -> list[Any]:
        """The vectors of a chunk of `count` codes, from word `word` on."""

    @abc.abstractmethod
    def raw(self, loaded: list[Any], number: int, lanes: int) -> Any:
        """Code `number` of the chunk in the low bits of int32 (bits above it are arbitrary)."""

    @abc.abstractmethod
    def value(self, raw: Any, table: Any, lanes: int) -> Any:
        """The float32 values of what `raw` gave."""

    def minus(self, raw: Any, plane: int, lanes: int) -> Any:
        """int32 with the top bit set where a binary plane's sign is minus; binary coding only.

        Raises:
            NotImplementedError: the codes are no binary planes.
        """
        raise NotImplementedError(f"{type(self).__name__} has no planes")

    @property
    def entries(self) -> int:
        """Entries of the table that kernels get as an argument; 0: none."""
        return 0


@dataclasses.dataclass(frozen=True)
class CodeDecoder(Decoder):
    """Codes of 1 to 8 bits in streams.

    Attributes:
        bits: of a code.
        kind: ``table``: looked up. ``signed``, ``unsigned``: integers, by shifting and converting.
            ``float``: a sign, exponent and mantissa that shifting puts into float32's places.
        lookup: of a table.
        exponent: of a float, what the value is multiplied by as a power of two.
        mantissa: bits of a float.
        sign: whether the float has a sign bit.
    """

    bits: int
    kind: Literal["table", "signed", "unsigned", "float"]
    lookup: Lookup | None = None
    exponent: float = 0.0
    mantissa: int = 0
    sign: bool = True

    @property
    def chunk(self) -> int:
        """Codes up to a word's end, at least 4."""
        return chunk_of(self.bits)

    def words(self, count: int) -> int:
        """Words with whole and last, broken, ones."""
        return words_of(count, self.bits)

    @property
    def dtype(self) -> str:
        """``int32``."""
        return "int32"

    @property
    def entries(self) -> int:
        """Of the table."""
        return self.lookup.entries(self.bits) if self.kind == "table" and self.lookup else 0

    def load(self, stored: Any, panel: Any, word: Any, count: int, lanes: int) -> list[Any]:
        """Each word once."""
        return [T.Bind(stored[panel, word + i, ramp(0, lanes)]) for i in range(self.words(count))]

    def raw(self, loaded: list[Any], number: int, lanes: int) -> Any:
        """Shifted down; a code that straddles two words is put together."""
        word, shift = divmod(number * self.bits, 32)
        low = _shift_right(loaded[word], shift, lanes)
        if shift + self.bits <= 32:
            return low
        # The shift is arithmetic: what came in at the top makes room for the next word's bits.
        low = tirx.bitwise_and(low, broadcast(_int((1 << (32 - shift)) - 1), lanes))
        return tirx.bitwise_or(low, _shift_left(loaded[word + 1], 32 - shift, lanes))

    def value(self, raw: Any, table: Any, lanes: int) -> Any:
        """By table or by arithmetic."""
        reals = vector("float32", lanes)
        if self.kind == "table":
            assert self.lookup is not None
            return self.lookup.find(table, self.bits, raw)
        if self.kind == "signed":
            top = _shift_left(raw, 32 - self.bits, lanes)
            return tirx.Cast(reals, top >> broadcast(_int(32 - self.bits), lanes))
        if self.kind == "unsigned":
            return tirx.Cast(
                reals, tirx.bitwise_and(raw, broadcast(_int((1 << self.bits) - 1), lanes))
            )
        magnitude = (1 << (self.bits - self.sign)) - 1
        moved = _shift_left(
            tirx.bitwise_and(raw, broadcast(_int(magnitude), lanes)), 23 - self.mantissa, lanes
        )
        if self.sign:
            top = _shift_left(raw, 32 - self.bits, lanes)
            minus = broadcast(tirx.const(-(1 << 31), "int32"), lanes)
            moved = tirx.bitwise_or(moved, tirx.bitwise_and(top, minus))
        factor = tirx.const(float(2.0**self.exponent), "float32")
        return tirx.reinterpret(reals, moved) * broadcast(factor, lanes)


@dataclasses.dataclass(frozen=True)
class PlaneDecoder(Decoder):
    """Binary coding: each plane's signs are a stream of their own, a set bit for minus.

    Attributes:
        bits: planes; the words of 32 values follow each other, plane by plane.
    """

    bits: int

    @property
    def chunk(self) -> int:
        """A word of each plane."""
        return 32

    def words(self, count: int) -> int:
        """Words with whole and last, broken, ones."""
        return self.bits * words_of(count, 1)

    @property
    def dtype(self) -> str:
        """``int32``."""
        return "int32"

    def load(self, stored: Any, panel: Any, word: Any, count: int, lanes: int) -> list[Any]:
        """Each plane's word."""
        return [T.Bind(stored[panel, word + i, ramp(0, lanes)]) for i in range(self.words(count))]

    def raw(self, loaded: list[Any], number: int, lanes: int) -> Any:
        """The planes' words with the number's signs on top."""
        first = number // 32 * self.bits
        words = loaded[first : first + self.bits]
        return [_shift_left(word, 31 - number % 32, lanes) for word in words]

    def value(self, raw: Any, table: Any, lanes: int) -> Any:
        """1 or -1, of a single plane; several have their scales in `Group.value`."""
        one = broadcast(tirx.const(1.0, "float32"), lanes)
        sign = tirx.bitwise_and(raw[0], broadcast(tirx.const(-(1 << 31), "int32"), lanes))
        signed = tirx.reinterpret(vector("int32", lanes), one) ^ sign
        return tirx.reinterpret(vector("float32", lanes), signed)

    def minus(self, raw: Any, plane: int, lanes: int) -> Any:
        """The plane's."""
        return raw[plane]


@dataclasses.dataclass(frozen=True)
class FloatDecoder(Decoder):
    """Weights that are floats of 16 or 32 bits, one number a word."""

    storage: Literal["float32", "float16", "bfloat16"]

    @property
    def chunk(self) -> int:
        """A few, to unroll."""
        return 8

    def words(self, count: int) -> int:
        """One each."""
        return count

    @property
    def dtype(self) -> str:
        """The type itself; bfloat16 as its bits."""
        return "uint16" if self.storage == "bfloat16" else self.storage

    def load(self, stored: Any, panel: Any, word: Any, count: int, lanes: int) -> list[Any]:
        """Each number."""
        return [stored[panel, word + i, ramp(0, lanes)] for i in range(count)]

    def raw(self, loaded: list[Any], number: int, lanes: int) -> Any:
        """The number as stored."""
        return loaded[number]

    def value(self, raw: Any, table: Any, lanes: int) -> Any:
        """Widened."""
        return widen(raw, self.storage, lanes)


def stream_code(stored: Any, panel: Any, place: Any, bits: int, words: int, lanes: int) -> Any:
    """A code of every output of a panel at a place known only at run time, as `Decoder.raw`.

    Args:
        stored: int32 ``[panels, words, lanes]``, streams of codes.
        panel: which panel.
        place: number of the code in its stream.
        bits: of a code.
        words: of a stream.
        lanes: outputs in a panel.
    """
    position = tirx.Cast("int32", place) * bits
    word, shift = T.Bind(position // 32), T.Bind(position % 32)
    low = tirx.shift_right(stored[panel, word, ramp(0, lanes)], broadcast(shift, lanes))
    if 32 % bits == 0:
        return low
    # The next word's bits come in above those of this one; shifting twice, never by 32.
    following = stored[panel, tirx.min(word + 1, _int(words - 1)), ramp(0, lanes)]
    room = broadcast(_int(31) - shift, lanes)
    mask = tirx.shift_left(broadcast(_int(2), lanes), room) - broadcast(_int(1), lanes)
    high = tirx.shift_left(_shift_left(following, 1, lanes), room)
    return tirx.bitwise_or(tirx.bitwise_and(low, mask), high)


def widen(stored: Any, storage: str, lanes: int) -> Any:
    """A vector of float32, float16, bfloat16 (as uint16) or e8m0 (as uint8) as float32."""
    reals = vector("float32", lanes)
    if storage == "float32":
        return stored
    if storage == "float16":
        return tirx.Cast(reals, stored)
    whole = tirx.Cast(vector("int32", lanes), stored)
    return tirx.reinterpret(reals, _shift_left(whole, 16 if storage == "bfloat16" else 23, lanes))


def _int(value: int) -> Any:
    return tirx.const(value, "int32")


def _shift_left(value: Any, by: int, lanes: int) -> Any:
    return value if by == 0 else value << broadcast(_int(by), lanes)


def _shift_right(value: Any, by: int, lanes: int) -> Any:
    """Arithmetic: what comes in at the top are bits above the code."""
    return value if by == 0 else value >> broadcast(_int(by), lanes)
