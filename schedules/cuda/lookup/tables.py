"""Tables of signed sums in shared memory: 256 for eight inputs, of a lane's own, in its own bank.

An entry's number is the byte of signs, a set bit for minus. Entries are 256 bytes apart, so the
byte is the second byte of the entry's place: one byte permutation makes a place of a word of signs.
In those 256 bytes lie two numbers of each lane: with one row of x those of two tables, with more
rows those of two rows, which one load brings.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics.registers import held
from ..parameters import Parameters, long
from .binary_coded import WORD, input_of, padded
from .sizes import ENTRIES, LANES, OCTET, REGION, LutSizes

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Words between entries.
_STRIDE = REGION // ENTRIES // 4


class Tables:
    """A block's tables of one slice of the inputs, as one lane makes and reads them.

    Attributes:
        half: which 16 inputs of its word the lane has, where it has not all.
        plain: by row, the sum of the lane's inputs: what offsets are multiplied by.
    """

    def __init__(
        self,
        parameters: Parameters,
        sizes: LutSizes,
        shared: Any,
        floats: Any,
        lane: Any,
        warp: Any,
    ) -> None:
        """Nothing is made yet.

        Args:
            parameters: for x.
            sizes: of the block.
            shared: its memory, as bytes; the tables come first.
            floats: the same as float32.
            lane: the thread's.
            warp: the thread's.
        """
        self.parameters, self.sizes = parameters, sizes
        self.shared, self.floats = shared, floats
        self.lane, self.warp = lane, warp
        self.words = padded(1, parameters.problem.inputs)[1]
        #: Lanes that share a word.
        self.sharing = WORD // (OCTET * sizes.tables)
        self.half = held(lane % 2)
        pair = 1 if sizes.rows == 1 else 2
        self.place = held(tirx.Cast("uint32", lane * (4 * pair)))
        self.selectors = [held(self._selector(table)) for table in range(sizes.tables)]
        self.plain = T.alloc_buffer((sizes.rows,), "float32", scope="local")

    def word(self, slice_: Any) -> Any:
        """The lane's word of a slice; beyond the row it is the last one, whose x counts as zero."""
        return held(tirx.min(self._word(slice_), self.words - 1))

    def _word(self, slice_: Any) -> Any:
        return slice_ * self.sizes.words + self.lane // self.sharing

    def _byte(self, table: int) -> Any:
        """Which byte of its word a lane's table belongs to."""
        if self.sharing == 1:
            return tirx.const(table, "int32")
        if self.sharing == 2:
            return self.lane % 2 + 2 * table
        return self.lane % 4

    def _selector(self, table: int) -> Any:
        """Puts that byte between the bytes of a lane's place."""
        byte = tirx.Cast("uint32", self._byte(table))
        return byte * tirx.const(16, "uint32") + tirx.const(0x7604, "uint32")

    def _number(self, table: int, row: int) -> int:
        """Where, in words, numbers of a table and row begin, but for the lane's place."""
        if self.sizes.rows == 1:
            return table // 2 * (REGION // 4) + table % 2 * LANES
        pairs = self.sizes.rows // 2
        return (table * pairs + row // 2) * (REGION // 4) + row % 2

    def make(self, slice_: Any, first_row: Any) -> None:
        """Make the tables of a slice; all threads take part.

        Args:
            slice_: its number; beyond the inputs all is zero.
            first_row: of the block.
        """
        sizes = self.sizes
        word = held(self._word(slice_))
        step = 1 if sizes.rows == 1 else 2
        for row in range(sizes.rows):
            T.buffer_store(self.plain, tirx.const(0.0, "float32"), [row])
        for table in range(sizes.tables):
            for first in range(0, sizes.rows, step):
                low, high = [], []
                for row in range(first, first + step):
                    values = self._values(word, table, held(first_row + row))
                    entries = _sixteen(values[:4])
                    low.append(entries)
                    high.append(values[4:])
                    total = entries[0] + ((values[4] + values[5]) + (values[6] + values[7]))
                    T.buffer_store(self.plain, self.plain[row] + total, [row])
                self._store(table, first, low, high)

    def _store(self, table: int, first: int, low: list[list[Any]], high: list[list[Any]]) -> None:
        """Each warp has some of the numbers of the upper four signs."""
        base = held(tirx.Cast("int32", self.place) // 4 + self._number(table, first))
        for turn in range(16 // self.sizes.warps):
            upper = held(self.warp + turn * self.sizes.warps)
            at = held(base + upper * (16 * _STRIDE))
            signed = [_signed(values, upper) for values in high]
            for number in range(16):
                for place, entries in enumerate(low):
                    value = entries[number] + signed[place]
                    T.buffer_store(self.floats, value, [at + (number * _STRIDE + place)])

    def _values(self, word: Any, table: int, row: Any) -> list[Any]:
        """Eight inputs as float32; zero where there are none."""
        parameters = self.parameters
        inputs = parameters.problem.inputs
        byte = self._byte(table)
        first = held(word * WORD + (input_of(byte, 0)))
        found = []
        for bit in range(OCTET):
            column = held(first + 2 * bit)
            inside = tirx.all(row < parameters.rows, column < inputs)
            value = T.alloc_buffer((1,), "float32", scope="local")
            T.buffer_store(value, tirx.const(0.0, "float32"), [0])
            with T.If(inside), T.Then():
                element = parameters.x[row, long(column)]
                T.buffer_store(value, tirx.Cast("float32", element), [0])
            found.append(value[0])
        return found

    def find(self, word: Any) -> list[Any]:
        """By row, the signed sums of a lane's inputs for a word of signs."""
        sizes = self.sizes
        found: list[Any] = []
        for table in range(sizes.tables):
            entries: list[Any] = []
            for row in range(0, sizes.rows, 2):
                entries += self._entry(word, table, row)
            found = [a + b for a, b in zip(found, entries, strict=True)] if found else entries
        return [held(value) for value in found]

    def _entry(self, word: Any, table: int, row: int) -> list[Any]:
        """One load: of one row, or of two."""
        tables, selector = T.address_of(self.shared[0]), self.selectors[table]
        offset = tirx.const(4 * self._number(table, row), "int32")
        if self.sizes.rows == 1:
            code = """
__device__ __forceinline__ float fewbits_signed_sum(
    const void* tables, unsigned word, unsigned place, unsigned selector, int offset) {
  return *(const float*)((const char*)tables + __byte_perm(word, place, selector) + offset);
}
"""
            call = cuda_func_call(
                "fewbits_signed_sum", tables, word, self.place, selector, offset,
                source_code=code, return_type="float32",
            )  # fmt: skip
            return [held(call)]
        code = """
__device__ __forceinline__ void fewbits_signed_sums(
    float& a, float& b, const void* tables, unsigned word, unsigned place, unsigned selector,
    int offset) {
  float2 v = *(const float2*)((const char*)tables + __byte_perm(word, place, selector) + offset);
  a = v.x;
  b = v.y;
}
"""
        pair = T.alloc_buffer((2,), "float32", scope="local")
        arguments = (pair[0], pair[1], tables, word, self.place, selector, offset)
        T.evaluate(cuda_func_call("fewbits_signed_sums", *arguments, source_code=code))
        return [pair[0], pair[1]]


def _sixteen(values: list[Any]) -> list[Any]:
    """The signed sums of four values, a set bit of the number for minus."""
    a, b = held(values[0] + values[1]), held(values[0] - values[1])
    c, d = held(values[2] + values[3]), held(values[2] - values[3])
    first, second = [a, -b, b, -a], [c, -d, d, -c]
    return [held(first[number % 4] + second[number // 4]) for number in range(16)]


def _signed(values: list[Any], number: Any) -> Any:
    """Four values with the signs of a number known at run time, added."""
    signed = []
    for bit, value in enumerate(values):
        minus = (number >> bit) % 2 == 1
        signed.append(held(tirx.Select(minus, -value, value)))
    return held((signed[0] + signed[1]) + (signed[2] + signed[3]))
