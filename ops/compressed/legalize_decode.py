"""``fewbits.decode`` at run time, for every format, granularity and sparsity.

The packed codes, places and scales are read as they are stored: nothing is expanded before.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax, te, tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ...formats.base import NumberFormat
from ...formats.binary import BinaryCoding
from ...formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor, parse_granularity
from ...formats.parse import parse_format
from ...formats.plain import PLAIN_TYPES
from ...formats.sparsity import Bitmap, Dense, NofM, Sparsity, parse_sparsity
from ...formats.vectors import Vectors
from .legalize import DECODED, legalizes
from .legalize_scales import float_of, scales_of, tables_of

#: Bits beyond which an index into a tensor's bits does not fit 32 bits.
_NARROW_BITS = 1 << 31


@dataclasses.dataclass(frozen=True)
class Plain:
    """A tensor of floats, of which only some may be stored, inside a TIR function.

    Attributes:
        description: of `formats.storage.take_apart`.
        parts: its arrays.
    """

    description: dict[str, Any]
    parts: dict[str, Any]

    #: Of a stored value.
    bits: ClassVar[int] = 32

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(self.description["shape"])

    @property
    def sparsity(self) -> Sparsity:
        """Which values are stored."""
        return parse_sparsity(self.description["sparsity"])

    def flat(self, at: Sequence[ir.Expr]) -> ir.Expr:
        """The place of an element in C order."""
        wide = math.prod(self.shape) * self.bits >= _NARROW_BITS
        place: ir.Expr = prim.IntImm("int64" if wide else "int32", 0)
        for index, size in zip(at, self.shape, strict=True):
            place = place * size + (index.astype("int64") if wide else index)
        return place

    def value(self, stored: ir.Expr, at: Sequence[ir.Expr]) -> ir.Expr:
        """The real of the stored value of that number, which lies at these coordinates."""
        del at
        word = self.parts["values"][stored]
        if self.description["format"] == "bfloat16":
            return tirx.reinterpret("float32", word.astype("uint32") << 16)
        return float_of(word, str(self.parts["values"].dtype))


@dataclasses.dataclass(frozen=True)
class Coded(Plain):
    """A tensor of codes with scales.

    Attributes:
        number_format: of the codes.
        table: the reals of the codes, float32.
        scales: float32, flat.
    """

    number_format: NumberFormat
    table: Any
    scales: Any

    @property
    def bits(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of a code."""
        return self.number_format.bits

    def row(self, at: Sequence[ir.Expr]) -> ir.Expr:
        """Which scale an element has, counted in C order of the scales."""
        granularity = parse_granularity(self.description["granularity"])
        if isinstance(granularity, PerTensor):
            return prim.IntImm("int32", 0)
        if isinstance(granularity, PerChannel):
            return at[granularity.axis]
        if isinstance(granularity, PerBlock):
            return tirx.floordiv(self.flat(at), granularity.size)
        coordinates = list(at)
        if isinstance(granularity, PerGroup):
            axis = granularity.axis
            coordinates[axis] = tirx.floordiv(coordinates[axis], granularity.size)
        else:
            coordinates.pop()
        row: ir.Expr = prim.IntImm("int32", 0)
        sizes = granularity.scale_shape(self.shape)
        for index, size in zip(coordinates, sizes, strict=True):
            row = row * size + index
        return row

    def value(self, stored: ir.Expr, at: Sequence[ir.Expr]) -> ir.Expr:
        """As for floats: the code's real, times its scale."""
        bits = self.number_format.bits
        code = bits_at(self.parts["codes"], stored, bits)
        row = self.row(at)
        if isinstance(self.number_format, BinaryCoding):
            total: ir.Expr = prim.FloatImm("float32", 0)
            for plane in range(bits):
                scale = self.scales[row * bits + plane]
                total += tirx.Select((code >> plane) & 1 == 1, scale, -scale)
            return total + _flat(self.parts["offsets"], row) if "offsets" in self.parts else total
        real = self.table[code]
        if "zero_points" in self.parts:
            real -= self.table[bits_at(self.parts["zero_points"], row, bits)]
        return real * self.scales[row]


def bits_at(packed: Any, number: ir.Expr, bits: int) -> ir.Expr:
    """The code of that number in a stream of codes, low bits first; int32."""
    place = number * bits
    byte, inside = tirx.floordiv(place, 8), tirx.floormod(place, 8)
    word = packed[byte].astype("int32")
    if 8 % bits:
        # Codes cross bytes; the last one does not.
        last = int(packed.shape[0]) - 1
        following = packed[tirx.min(byte + 1, last)].astype("int32")
        word = word | (following << 8)
    return (word >> inside.astype("int32")) & ((1 << bits) - 1)


def _flat(tensor: Any, place: ir.Expr) -> ir.Expr:
    """The element at a place in C order, whatever shape the tensor has."""
    at: list[ir.Expr] = []
    for size in reversed([int(size) for size in tensor.shape]):
        at.insert(0, tirx.floormod(place, size))
        place = tirx.floordiv(place, size)
    return tensor[tuple(at)]


@legalizes("fewbits.decode")
def _decode(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    description = json.loads(str(call.attrs["description"]))
    if description["format"] in PLAIN_TYPES:
        return _plain(builder, description, call.args[0].fields)
    number_format = parse_format(description["format"])
    table = relax.const(number_format.values().astype(np.float32))
    storage, count = description["scales"]["storage"], math.prod(description["scales"]["shape"])

    tables = tables_of(storage)
    names = [*tables, *description["parts"]]

    def decode(table: te.Tensor, *arrays: te.Tensor) -> te.Tensor:
        parts = dict(zip(names, arrays, strict=True))
        scales = scales_of(storage, count, parts)
        return _values(Coded(description, parts, number_format, table, scales))

    constants = [table, *map(relax.const, tables.values()), *call.args[0].fields]
    return builder.call_te(decode, *constants, primfunc_name_hint="decode")


def _plain(
    builder: relax.BlockBuilder, description: dict[str, Any], arrays: Sequence[relax.Expr]
) -> relax.Expr:
    """Floats at some places."""

    def decode(*tensors: te.Tensor) -> te.Tensor:
        return _values(Plain(description, dict(zip(description["parts"], tensors, strict=True))))

    return builder.call_te(decode, *arrays, primfunc_name_hint="decode")


def _values(stored: Plain) -> te.Tensor:
    sparsity = stored.sparsity
    if isinstance(sparsity, Dense):
        return te.compute(
            stored.shape,
            lambda *at: stored.value(stored.flat(at), at),
            name="decoded",
            attrs={DECODED: 1},
        )
    if isinstance(sparsity, NofM):
        return te.compute(
            stored.shape,
            lambda *at: _of_group(stored, sparsity, at),
            name="decoded",
            attrs={DECODED: 1},
        )
    if isinstance(sparsity, Vectors):
        return _walked(stored, functools.partial(_vectors, sparsity.length))
    return _walked(stored, _bitmap if isinstance(sparsity, Bitmap) else _rows)


def _walked(stored: Plain, walk: Callable[[Plain, Any], None]) -> te.Tensor:
    """A tensor whose stored values can only be found one after the other."""
    parts = {name: part for name, part in stored.parts.items() if not name.startswith("scales/")}
    extra = {"table": stored.table, "scales": stored.scales} if isinstance(stored, Coded) else {}

    def body(inputs: Sequence[Any], outputs: Sequence[Any]) -> tirx.Stmt:
        arrays = dict(zip([*parts, *extra], inputs, strict=True))
        own = {name: arrays.pop(name) for name in extra}
        with IRBuilder() as builder:
            with T.seq_scope():
                walk(dataclasses.replace(stored, parts=arrays, **own), outputs[0])
            # Without the scope's mark, which LLVM's back end warns about.
            return builder.get().body

    return te.extern(
        [stored.shape],
        [*parts.values(), *extra.values()],
        body,
        dtype=["float32"],
        out_buffers=[tirx.decl_buffer(stored.shape, "float32", "decoded", layout=None)],
        name="decoded",
    )


def _of_group(stored: Plain, sparsity: NofM, at: Sequence[ir.Expr]) -> ir.Expr:
    """n:m: the stored value of the element's group whose place is the element's, or 0."""
    inside = tirx.floormod(at[-1], sparsity.m)
    first = tirx.floordiv(stored.flat(at), sparsity.m) * sparsity.n
    result: ir.Expr = prim.FloatImm("float32", 0)
    for k in range(sparsity.n):
        place = bits_at(stored.parts["places/places"], first + k, sparsity.place_bits)
        result = tirx.Select(place == inside, stored.value(first + k, at), result)
    return result


def _coordinates(stored: Plain, flat: ir.Expr) -> list[ir.Expr]:
    at: list[ir.Expr] = []
    for size in reversed(stored.shape):
        at.insert(0, tirx.floormod(flat, size))
        flat = tirx.floordiv(flat, size)
    return at


def _bitmap(stored: Plain, output: Any) -> None:
    """One walk over the bits, counting those that are set."""
    seen = T.alloc_buffer((1,), "int32")
    T.buffer_store(seen, prim.IntImm("int32", 0), [0])
    with T.serial(0, math.prod(stored.shape)) as flat:
        at = _coordinates(stored, flat)
        T.buffer_store(output, prim.FloatImm("float32", 0), at)
        with T.If(bits_at(stored.parts["places/bitmap"], flat, 1) == 1), T.Then():
            T.buffer_store(output, stored.value(seen[0], at), at)
            T.buffer_store(seen, seen[0] + 1, [0])


def _rows(stored: Plain, output: Any) -> None:
    """Zeros everywhere, then the values of each row at their columns."""
    ends, columns = stored.parts["places/ends"], stored.parts["places/columns"]
    length = stored.shape[-1] if stored.shape else 1
    seen = T.alloc_buffer((1,), "int32")
    T.buffer_store(seen, prim.IntImm("int32", 0), [0])
    with T.serial(0, math.prod(stored.shape)) as flat:
        T.buffer_store(output, prim.FloatImm("float32", 0), _coordinates(stored, flat))
    with T.serial(0, math.prod(stored.shape) // max(length, 1)) as row:
        with T.serial(0, ends[row].astype("int32") - seen[0]) as k:
            column = columns[seen[0] + k].astype("int32")
            at = _coordinates(stored, row * length + column)
            T.buffer_store(output, stored.value(seen[0] + k, at), at)
        T.buffer_store(seen, ends[row].astype("int32"), [0])


def _vectors(length: int, stored: Plain, output: Any) -> None:
    """Zeros everywhere, then the values of each row at the columns of its vector row."""
    ends, columns = stored.parts["places/ends"], stored.parts["places/columns"]
    rows, width = stored.shape[0], math.prod(stored.shape[1:])
    seen = T.alloc_buffer((1,), "int32")
    T.buffer_store(seen, prim.IntImm("int32", 0), [0])
    with T.serial(0, rows * width) as flat:
        T.buffer_store(output, prim.FloatImm("float32", 0), _coordinates(stored, flat))
    with T.serial(0, rows) as row:
        block = row // length
        before = tirx.max(block - 1, 0)
        first = tirx.Select(block > 0, ends[before].astype("int32"), 0)
        count = ends[block].astype("int32") - first
        with T.serial(0, count) as k:
            column = columns[first + k].astype("int32")
            at = _coordinates(stored, row * width + column)
            T.buffer_store(output, stored.value(seen[0] + k, at), at)
        T.buffer_store(seen, seen[0] + count, [0])
