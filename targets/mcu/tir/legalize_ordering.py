"""Sorting, the largest elements and where they are."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Sequence

from tvm import ir, relax, te, tirx, topi
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ....schedules.stages.program import INDEPENDENT
from .legalize import LEGALIZATIONS, Legalization, legalizes


def _precedes(a: ir.Expr, b: ir.Expr, descending: bool) -> tuple[ir.Expr, ir.Expr]:
    """Whether `a` comes before `b`, and whether they are equal. NaN counts as the largest."""
    first, second = (a, b) if descending else (b, a)
    larger, equal = first > second, a == b
    if str(a.ty.dtype).startswith("float"):
        larger = tirx.any(larger, tirx.all(tirx.isnan(first), tirx.Not(tirx.isnan(second))))
        equal = tirx.any(equal, tirx.all(tirx.isnan(a), tirx.isnan(b)))
    return larger, equal


def _sorted(
    data: te.Tensor, axis: int, count: int | ir.Expr, descending: bool, index_dtype: str, which: str
) -> te.Tensor | list[te.Tensor]:
    """The first `count` values in order along an axis, or their indices, or both.

    Each element's place is the number of elements that come before it, so nothing is moved twice
    and no memory is needed; the time is quadratic in the axis' length.
    """
    axis %= len(data.shape)
    shape = [*data.shape[:axis], count, *data.shape[axis + 1 :]]
    length = data.shape[axis]
    dtypes = {"values": str(data.dtype), "indices": index_dtype}
    wanted = [kind for kind in dtypes if which in (kind, "both")]

    def body(ins: Sequence[ir.Var], outs: Sequence[ir.Var]) -> tirx.Stmt:
        with IRBuilder() as builder:
            with T.seq_scope():
                rank = T.alloc_buffer((1,), "int32")
                with contextlib.ExitStack() as loops:
                    # No two elements have the same place, so all of them may go at once.
                    at = [
                        loops.enter_context(T.serial(0, size, annotations={INDEPENDENT: True}))
                        for size in data.shape
                    ]
                    here = ins[0][tuple(at)]
                    T.buffer_store(rank, prim.IntImm("int32", 0), [0])
                    with T.serial(0, length) as other:
                        there = ins[0][(*at[:axis], other, *at[axis + 1 :])]
                        before, equal = _precedes(there, here, descending)
                        earlier = tirx.all(equal, other < at[axis])
                        with T.If(tirx.any(before, earlier)), T.Then():
                            T.buffer_store(rank, rank[0] + 1, [0])
                    place = [*at[:axis], rank[0], *at[axis + 1 :]]
                    found = {"values": here, "indices": at[axis].astype(index_dtype)}
                    with T.If(rank[0] < count), T.Then():
                        for kind, output in zip(wanted, outs, strict=True):
                            T.buffer_store(output, found[kind], place)
            # Without the scope's mark, which LLVM's back end warns about.
            return builder.get().body

    return te.extern(
        [shape] * len(wanted),
        [data],
        body,
        dtype=[dtypes[kind] for kind in wanted],
        out_buffers=[tirx.decl_buffer(shape, dtypes[kind], kind, layout=None) for kind in wanted],
        name="sorted",
    )


@legalizes("relax.sort")
def _sort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, descending = int(call.attrs.axis), bool(call.attrs.descending)

    def sort(data: te.Tensor) -> te.Tensor | list[te.Tensor]:
        return _sorted(data, axis, data.shape[axis], descending, "int32", "values")

    return builder.call_te(sort, call.args[0])


@legalizes("relax.argsort")
def _argsort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, descending = int(call.attrs.axis), bool(call.attrs.descending)
    dtype = str(call.attrs.dtype)

    def argsort(data: te.Tensor) -> te.Tensor | list[te.Tensor]:
        return _sorted(data, axis, data.shape[axis], descending, dtype, "indices")

    return builder.call_te(argsort, call.args[0])


@legalizes("relax.topk")
def _topk(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    attrs = call.attrs
    axis, dtype, which = int(attrs.axis), str(attrs.dtype), str(attrs.ret_type)

    def topk(data: te.Tensor) -> te.Tensor | list[te.Tensor]:
        count = int(attrs.k) if int(attrs.k) >= 1 else data.shape[axis]
        return _sorted(data, axis, count, bool(attrs.largest), dtype, which)

    return builder.call_te(topk, call.args[0])


def _arg_extreme(largest: bool) -> Legalization:
    """Index of the first largest or smallest element."""

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        axis, keep = call.attrs.axis, bool(call.attrs.keepdims)

        def pick(a: tuple[ir.Expr, ir.Expr], b: tuple[ir.Expr, ir.Expr]) -> tuple[ir.Expr, ir.Expr]:
            better = a[1] > b[1] if largest else a[1] < b[1]
            wins = tirx.any(better, tirx.all(a[1] == b[1], a[0] < b[0]))
            return tirx.Select(wins, a[0], b[0]), tirx.Select(better, a[1], b[1])

        def worst(index: object, value: object) -> tuple[ir.Expr, ir.Expr]:
            name = str(value)
            if name.startswith("float"):
                bound = prim.FloatImm(name, float("-inf") if largest else float("inf"))
            else:
                bound = tirx.min_value(name) if largest else tirx.max_value(name)
            return tirx.max_value(str(index)), bound

        best = te.comm_reducer(pick, worst, name="best")

        def arg_extreme(data: te.Tensor) -> te.Tensor:
            if axis is None:
                flat = topi.reshape(data, (functools.reduce(operator.mul, data.shape, 1),))
                shape = [1] * len(data.shape) if keep else []
                at = 0
            else:
                flat = data
                at = int(axis) % len(data.shape)
                middle = [1] if keep else []
                shape = [*data.shape[:at], *middle, *data.shape[at + 1 :]]
            k = te.reduce_axis((0, flat.shape[at]), name="k")

            def element(*place: ir.Expr) -> tuple[ir.Expr, ...]:
                rest = [] if axis is None else [*place[:at], *place[at + keep :]]
                value = flat(*rest[:at], k, *rest[at:])
                return best((k.var.astype("int32"), value), axis=k)

            index, _ = te.compute(shape, element, name="arg")
            return te.compute(shape, lambda *place: index(*place).astype("int64"), name="index")

        return builder.call_te(arg_extreme, call.args[0])

    return legalize


LEGALIZATIONS["relax.argmax"] = _arg_extreme(largest=True)
LEGALIZATIONS["relax.argmin"] = _arg_extreme(largest=False)
