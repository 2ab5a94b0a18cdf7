"""Stored scales as float32, for every storage that `formats.scales` has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from tvm import ir, te, tirx
from tvm.ir import prim

from ...formats.dynamic import DynamicTree
from ...formats.scales import DOUBLE_BLOCK

_SMALLEST = 2.0**-126

#: Name of the table that double quantization needs besides the stored arrays.
TREE = "scales/tree"


def tables_of(storage: str) -> dict[str, np.ndarray]:
    """Arrays that `scales_of` needs besides the stored ones."""
    if storage != "double":
        return {}
    return {TREE: DynamicTree(8).values().astype(np.float32)}


def scales_of(storage: str, count: int, parts: Mapping[str, te.Tensor]) -> te.Tensor:
    """The scales in C order, positive.

    Args:
        storage: as in `StoredScales`.
        count: how many.
        parts: arrays by name, of which ``scales/...`` are the stored scales.
    """
    read = _READERS[storage](parts)
    return te.compute(
        (count,),
        lambda i: tirx.max(read(i), prim.FloatImm("float32", _SMALLEST)),
        name="scales",
    )


def _flat(tensor: te.Tensor, place: ir.Expr) -> ir.Expr:
    at: list[ir.Expr] = []
    for size in reversed([int(size) for size in tensor.shape]):
        at.insert(0, tirx.floormod(place, size))
        place = tirx.floordiv(place, size)
    return tensor[tuple(at)]


Reader = Callable[[ir.Expr], ir.Expr]


def _plain(parts: Mapping[str, te.Tensor]) -> Reader:
    stored = parts["scales/scales"]
    return lambda i: float_of(_flat(stored, i), str(stored.dtype))


def float_of(stored: ir.Expr, dtype: str) -> ir.Expr:
    """A stored float as float32; uint16 is the bits of a float16, for targets that have none."""
    if dtype != "uint16":
        return stored.astype("float32")
    word = stored.astype("uint32")
    # Its exponent and mantissa are those of a float32 that is 2**112 times too small.
    magnitude = tirx.reinterpret("float32", (word & 0x7FFF) << 13)
    value = magnitude * prim.FloatImm("float32", 2.0**112)
    return tirx.Select(word > 0x7FFF, -value, value)


def _bfloat16(parts: Mapping[str, te.Tensor]) -> Reader:
    """The upper half of a float32."""

    def read(i: ir.Expr) -> ir.Expr:
        word = _flat(parts["scales/scales"], i).astype("uint32") << 16
        return tirx.reinterpret("float32", word)

    return read


def _e8m0(parts: Mapping[str, te.Tensor]) -> Reader:
    """A biased exponent; 0 stands for less than the smallest scale."""

    def read(i: ir.Expr) -> ir.Expr:
        word = _flat(parts["scales/scales"], i).astype("uint32") << 23
        return tirx.reinterpret("float32", word)

    return read


def _double(parts: Mapping[str, te.Tensor]) -> Reader:
    """8-bit codes of the dynamic tree, a scale per block, around a mean."""

    def read(i: ir.Expr) -> ir.Expr:
        real = parts[TREE][_flat(parts["scales/codes"], i).astype("int32")]
        block = _flat(parts["scales/block_scales"], tirx.floordiv(i, DOUBLE_BLOCK.size))
        return real * block + _flat(parts["scales/mean"], prim.IntImm("int32", 0))

    return read


_READERS: Mapping[str, Callable[[Mapping[str, te.Tensor]], Reader]] = {
    "float32": _plain,
    "float16": _plain,
    "bfloat16": _bfloat16,
    "e8m0": _e8m0,
    "double": _double,
}
