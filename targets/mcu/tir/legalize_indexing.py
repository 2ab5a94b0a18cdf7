"""Gathering and scattering. An index that comes from data is brought into range, so that no index
reads or writes foreign memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import ir, relax, te, tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from .legalize import legalizes, several


def _inside(index: ir.Expr, extent: int | ir.Expr, mode: str = "fast") -> ir.Expr:
    """An index made non-negative as `mode` says, and never outside [0, extent)."""
    dtype = str(index.ty.dtype)
    length = prim.IntImm(dtype, extent) if isinstance(extent, int) else extent.astype(dtype)
    if mode == "wrap":
        return tirx.floormod(index, length)
    if mode != "clip" and not str(index.ty.dtype).startswith("u"):
        index = tirx.if_then_else(index < 0, index + length, index)
    return tirx.max(tirx.min(index, length - 1), tirx.const(0, str(index.ty.dtype)))


@legalizes("relax.take")
def _take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    mode = str(call.attrs.mode)
    x, indices = call.args
    axis = call.attrs.axis
    if not isinstance(indices.ty, relax.TensorType):
        indices = relax.const(int(indices), "int64")

    def take(data: te.Tensor, indices: te.Tensor) -> te.Tensor:
        at = 0 if axis is None else int(axis) % len(data.shape)
        rank = len(indices.shape)
        shape = [*data.shape[:at], *indices.shape, *data.shape[at + 1 :]]

        def element(*place: ir.Expr) -> ir.Expr:
            index = _inside(indices(*place[at : at + rank]), data.shape[at], mode)
            return data(*place[:at], index, *place[at + rank :])

        return te.compute(shape, element, name="taken")

    return builder.call_te(take, x, indices)


@legalizes("relax.gather_elements")
def _gather_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def gather_elements(data: te.Tensor, indices: te.Tensor) -> te.Tensor:
        axis = int(call.attrs.axis) % len(data.shape)

        def element(*place: ir.Expr) -> ir.Expr:
            index = _inside(indices(*place), data.shape[axis])
            return data(*place[:axis], index, *place[axis + 1 :])

        return te.compute(indices.shape, element, name="gathered")

    return builder.call_te(gather_elements, *call.args)


@legalizes("relax.gather_nd")
def _gather_nd(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    batch = int(call.attrs.batch_dims)

    def gather_nd(data: te.Tensor, indices: te.Tensor) -> te.Tensor:
        depth, rank = int(indices.shape[-1]), len(indices.shape)
        shape = [*indices.shape[:-1], *data.shape[batch + depth :]]

        def element(*place: ir.Expr) -> ir.Expr:
            outer, inner = place[: rank - 1], place[rank - 1 :]
            chosen = [
                _inside(indices(*outer, part), data.shape[batch + part]) for part in range(depth)
            ]
            return data(*outer[:batch], *chosen, *inner)

        return te.compute(shape, element, name="gathered")

    return builder.call_te(gather_nd, *call.args)


_COMBINE = {
    "update": lambda _old, new: new,
    "none": lambda _old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "min": tirx.min,
    "max": tirx.max,
}


def _scatter(
    data: te.Tensor,
    indices: te.Tensor,
    updates: te.Tensor,
    reduction: str,
    place: Callable[[ir.Var, list[ir.Expr]], list[ir.Expr]],
) -> te.Tensor:
    """A copy of `data` with every update combined into the element that `place` names."""
    output = tirx.decl_buffer(data.shape, data.dtype, "scattered", layout=None)

    def body(ins: Sequence[ir.Var], outs: Sequence[ir.Var]) -> tirx.Stmt:
        with IRBuilder() as builder:
            with T.seq_scope():
                with T.grid(*data.shape) as at:
                    at = several(at)
                    T.buffer_store(outs[0], ins[0][tuple(at)], at)
                with T.grid(*updates.shape) as at:
                    at = several(at)
                    target = place(ins[1], at)
                    old, new = outs[0][tuple(target)], ins[2][tuple(at)]
                    T.buffer_store(outs[0], _COMBINE[reduction](old, new), target)
            # Without the scope's mark, which LLVM's back end warns about.
            return builder.get().body

    return te.extern(
        [data.shape],
        [data, indices, updates],
        body,
        dtype=data.dtype,
        out_buffers=[output],
        name="scatter",
    )


@legalizes("relax.scatter_elements")
def _scatter_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    reduction = str(call.attrs.reduction)

    def scatter_elements(data: te.Tensor, indices: te.Tensor, updates: te.Tensor) -> te.Tensor:
        axis = int(call.attrs.axis) % len(data.shape)

        def place(buffer: ir.Var, at: list[ir.Expr]) -> list[ir.Expr]:
            index = _inside(buffer[tuple(at)], data.shape[axis])
            return [*at[:axis], index, *at[axis + 1 :]]

        return _scatter(data, indices, updates, reduction, place)

    return builder.call_te(scatter_elements, *call.args)


@legalizes("relax.scatter_nd")
def _scatter_nd(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    reduction = str(call.attrs.reduction)

    def scatter_nd(data: te.Tensor, indices: te.Tensor, updates: te.Tensor) -> te.Tensor:
        depth, rank = int(indices.shape[-1]), len(indices.shape)

        def place(buffer: ir.Var, at: list[ir.Expr]) -> list[ir.Expr]:
            outer, inner = at[: rank - 1], at[rank - 1 :]
            chosen = [
                _inside(buffer[(*outer, prim.IntImm("int64", part))], data.shape[part])
                for part in range(depth)
            ]
            return [*chosen, *inner]

        return _scatter(data, indices, updates, reduction, place)

    return builder.call_te(scatter_nd, *call.args)
