"""A vector's scales and offsets: four outputs of one group, as a lane has them."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.registers import held
from ..parameters import Parameters, long
from ..weight_only.slots import fetch
from .binary_coded import APART, TILE, VECTOR, BinaryCoded, padded

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


class Weight:
    """A product's weight as lanes read it, past the first cache."""

    def __init__(self, parameters: Parameters) -> None:
        """Nothing is read yet."""
        problem = parameters.problem
        layout: Any = problem.weight
        assert isinstance(layout, BinaryCoded)
        self.layout = layout
        self.signs, self.factors, self.scales = parameters.weight
        self.rows, self.words = padded(problem.outputs, problem.inputs)
        self.groups = layout.groups(problem.inputs)
        self.last = self.rows // TILE - 1
        #: Whether scales are two halves a word.
        self.short = layout.scale == "float16"

    def tile(self, number: Any) -> Any:
        """A tile's number: beyond the last tile it is the last one, whose results are not kept."""
        return held(tirx.min(number, self.last))

    def fetch_signs(
        self, registers: list[Any], tile: Any, place: Any, plane: Any, word: Any
    ) -> None:
        """Read a plane's words of four outputs: those at `place` modulo 8 of a tile.

        Args:
            registers: four elements of a uint32 buffer.
            tile, place, plane, word: int32 expressions; the word is inside the row.
        """
        first = long(tile) * (APART * self.layout.bits) + long(place * self.layout.bits + plane)
        base = T.address_of(self.signs[first * (self.words * VECTOR)])
        fetch(registers, base, word * (4 * VECTOR))

    def group_of(self, word: Any, half: Any) -> Any:
        """The group of a word's inputs; `half` tells the first 16 from the last, if 16 have one.

        Beyond the last group it is the last one.
        """
        group = self.layout.group
        if group is None:
            return tirx.const(0, "int32")
        if group >= 32:
            return word // (group // 32)
        found = word * 2 + half
        return tirx.min(found, self.groups - 1)

    def fetch_terms(
        self, registers: list[Any], tile: Any, place: Any, group: Any, term: int
    ) -> None:
        """Read four outputs' scales of a plane, or (the term after the planes) their offsets.

        Args:
            registers: two (float16) or four elements of a uint32 buffer.
            tile, place, group: int32 expressions.
            term: which.
        """
        terms = self.layout.terms
        first = (long(tile) * APART + long(place)) * (self.groups * terms * VECTOR)
        size = VECTOR * (2 if self.short else 4)
        base = T.address_of(self.scales[first])
        fetch(registers, base, (group * terms + term) * size)

    def terms_of(self, registers: list[Any]) -> list[Any]:
        """Those four as float32."""
        if not self.short:
            return [held(T.reinterpret("float32", word)) for word in registers]
        found = []
        for word in registers:
            for half in (word & tirx.const(0xFFFF, "uint32"), word >> tirx.const(16, "uint32")):
                number = T.reinterpret("float16", tirx.Cast("uint16", half))
                found.append(held(tirx.Cast("float32", number)))
        return found

    @property
    def term_words(self) -> int:
        """Words of four terms."""
        return 2 if self.short else 4
