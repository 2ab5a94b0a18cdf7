"""What an ONNX value can be during import.

Known at import (an initializer, or computed from such), known but for the sizes of symbolic
dimensions (what exporters compute from ``Shape``), or a variable that exists at run time only.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from tvm import relax, runtime

from ...errors import FewbitsError
from ...ops.symbolic import Extent, extents_of, simplified, spell, symbols
from .limits import check_extents

op: Any = relax.op

#: TVM's tensors begin at multiples of so many bytes.
_ALIGNMENT = 64

#: TVM has no type stubs: a class taken from here does not narrow what pyright knows.
_types: Any = relax


@dataclasses.dataclass(eq=False)
class Known:
    """A value that is known at import: an initializer, or computed from such.

    `name` is the ONNX value's name. The array may have a dtype that Relax lacks (int4, float8):
    it becomes a Relax constant only where a converter asks for one.
    """

    name: str
    array: np.ndarray
    _expr: relax.Expr | None = None

    @property
    def expr(self) -> relax.Expr:
        """The value as a Relax constant (always the same object)."""
        if self._expr is None:
            self._expr = constant(self.array)
        return self._expr

    @functools.cached_property
    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        if self.array.dtype.kind in "iub":
            return True
        return bool(np.isfinite(self.array.astype("float32", copy=False)).all())


@dataclasses.dataclass(eq=False)
class Sizes:
    """Integers that are known but for the sizes of symbolic dimensions.

    Attributes:
        name: the ONNX value's name.
        array: of dtype object; its elements are ints and primitive expressions of TVM.
        dtype: the ONNX value's integer type, as numpy spells it.
    """

    name: str
    array: np.ndarray
    dtype: str

    @property
    def expr(self) -> relax.Expr:
        """The numbers as a tensor that is computed at run time."""
        flat = [_scalar(element) for element in self.array.reshape(-1)]
        joined = op.concat(flat, 0) if len(flat) > 1 else flat[0]
        if self.dtype != "int64":
            joined = op.astype(joined, self.dtype)
        return joined if self.array.ndim == 1 else op.reshape(joined, self.array.shape)


def _scalar(element: Any) -> relax.Expr:
    """One size as a tensor [1]: the only number of a range that begins there."""
    if isinstance(element, int):
        return constant(np.array([element], "int64"))
    return op.arange(element, element + 1, 1, "int64")


def sizes_or_known(name: str, array: np.ndarray, dtype: str) -> Known | Sizes:
    """Simplified sizes, as plain numbers where nothing symbolic is left."""
    simple = np.empty(array.shape, object)
    simple.reshape(-1)[:] = [simplified(element) for element in array.reshape(-1)]
    if all(isinstance(element, int) for element in simple.reshape(-1)):
        return Known(name, simple.astype(dtype))
    return Sizes(name, simple, dtype)


def _shareable(array: np.ndarray) -> bool:
    """Whether TVM can work on the array's own memory."""
    aligned = array.ctypes.data % _ALIGNMENT == 0 and array.flags.c_contiguous
    return aligned and array.dtype.kind in "iuf" and array.ndim > 0


Value: TypeAlias = "relax.Var | Known | Sizes"


def constant(array: np.ndarray) -> relax.Expr:
    """A Relax constant of exactly the array's dtype (`relax.const` alone narrows int64).

    Weights that are mapped from a file stay there.
    """
    if isinstance(array, np.memmap) and _shareable(array):
        return relax.const(runtime.from_dlpack(array))
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    return relax.const(contiguous, str(array.dtype))


def dtype_and_shape(value: Value) -> tuple[str, tuple[Extent, ...]]:
    """dtype and shape of a value."""
    if isinstance(value, Known):
        return str(value.array.dtype), value.array.shape
    if isinstance(value, Sizes):
        return value.dtype, value.array.shape
    return dtype_of(value), extents_of(value)


class Shape(Sequence[int]):
    """A shape of which only the sizes that are asked for have to be static.

    Most operators look at few of their operands' dimensions, and the batch is not among them.
    """

    def __init__(self, extents: Sequence[Extent], where: str) -> None:
        self._extents = extents
        self._where = where

    def __len__(self) -> int:
        return len(self._extents)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return shape_of(self._extents[index], self._where)
        return self._static(self._extents[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self._extents) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(map(spell, self._extents)))

    def _static(self, extent: Extent) -> int:
        size = simplified(extent)
        if isinstance(size, int):
            return size
        raise FewbitsError(
            "symbolic-dimension",
            f"the size {spell(size)} cannot stay open here",
            where=self._where,
            hint=bind_hint([size]),
        )


def bind_hint(extents: Iterable[Any]) -> str:
    """How to give the symbolic dimensions in these sizes a size."""
    names = [symbol.name for symbol in symbols(extents)]
    return "give it a size: " + " ".join(f"--bind {name}=128" for name in names)


def shape_of(extents: Sequence[Extent], where: str) -> Sequence[int]:
    """A shape as a tuple of ints; where parts of it are symbolic, they cannot be looked at."""
    if all(isinstance(extent, int) for extent in extents):
        return tuple(extents)
    return Shape(extents, where)


def static_shape(expression: relax.Expr) -> Sequence[int]:
    """The shape of a normalized expression."""
    return shape_of(extents_of(expression), "the result")


def dtype_of(expression: relax.Expr) -> str:
    """The dtype of a normalized tensor expression."""
    type_: Any = expression.ty
    return str(type_.dtype.dtype)


def check_size(type_: Any, owner: str) -> None:
    """Refuse tensors of no, unknown or absurd size before anything allocates them."""
    if isinstance(type_, _types.TupleType):
        for field in type_.fields:
            check_size(field, owner)
    elif isinstance(type_, _types.TensorType):
        if not isinstance(type_.shape, _types.ShapeExpr):
            raise FewbitsError(
                "dynamic-shape", "the result's shape depends on run-time values", where=owner
            )
        shape = [simplified(extent) for extent in type_.shape.values]
        check_extents((e for e in shape if isinstance(e, int)), str(type_.dtype.dtype), owner)
