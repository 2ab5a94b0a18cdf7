"""Division, PReLU, resizing and layer norm in TIR, exactly as defined."""

from __future__ import annotations

from tvm import ir, te, tirx

from .functions import RESIZE_BITS
from .legalize import broadcast, broadcast_shape, clamped, legalizes, wide
from .normalization import NORMAL_BITS, RECIPROCAL_BITS, ROOT_BITS


def _scaled(attrs: dict, product: ir.Expr) -> ir.Expr:
    return clamped(attrs, (product + attrs["bias"]) >> attrs["shift"])


@legalizes("divide")
def _divide(attrs: dict, a: te.Tensor, b: te.Tensor, table: te.Tensor) -> te.Tensor:
    def element(*at: ir.Expr) -> ir.Expr:
        reciprocal = table(wide(b(*broadcast(b, at))) + 128)
        return _scaled(attrs, (wide(a(*broadcast(a, at))) - attrs["a_zero"]) * reciprocal)

    return te.compute(broadcast_shape(a.shape, b.shape), element, name="divide")


@legalizes("prelu")
def _prelu(attrs: dict, x: te.Tensor, multiplier: te.Tensor) -> te.Tensor:
    def element(*at: ir.Expr) -> ir.Expr:
        distance = wide(x(*at)) - attrs["zero"]
        positive = tirx.const(attrs["positive"], "int32")
        return _scaled(attrs, distance * tirx.Select(distance >= 0, positive, multiplier(at[-1])))

    return te.compute(x.shape, element, name="prelu")


@legalizes("resize2d")
def _resize2d(
    _attrs: dict,
    x: te.Tensor,
    rows: te.Tensor,
    row_weights: te.Tensor,
    columns: te.Tensor,
    column_weights: te.Tensor,
) -> te.Tensor:
    one = tirx.const(1 << RESIZE_BITS, "int32")

    def element(n: ir.Expr, y: ir.Expr, column: ir.Expr, c: ir.Expr) -> ir.Expr:
        below, right = row_weights(y), column_weights(column)

        def line(side: int) -> ir.Expr:
            index = columns(column, side)
            above = wide(x(n, rows(y, 0), index, c)) * (one - below)
            return above + wide(x(n, rows(y, 1), index, c)) * below

        total = line(0) * (one - right) + line(1) * right
        return ((total + (1 << (2 * RESIZE_BITS - 1))) >> (2 * RESIZE_BITS)).astype("int8")

    shape = (x.shape[0], rows.shape[0], columns.shape[0], x.shape[3])
    return te.compute(shape, element, name="resize2d")


def _long(value: int) -> ir.Expr:
    return tirx.const(value, "int64")


@legalizes("layer_norm")
def _layer_norm(attrs: dict, x: te.Tensor, weight: te.Tensor, bias: te.Tensor) -> te.Tensor:
    *leading, count = (int(extent) for extent in x.shape)
    leading = leading or [1]

    def element_of(at: tuple[ir.Expr, ...], index: ir.Expr) -> ir.Expr:
        return x(*at[: len(x.shape) - 1], index).astype("int64")

    i = te.reduce_axis((0, count), name="i")
    total = te.compute(leading, lambda *at: te.sum(element_of(at, i.var), axis=i), name="total")

    def distance(at: tuple[ir.Expr, ...], index: ir.Expr) -> ir.Expr:
        return element_of(at, index) * _long(count) - total(*at)

    j = te.reduce_axis((0, count), name="j")
    squares = te.compute(
        leading,
        lambda *at: te.sum(distance(at, j.var) * distance(at, j.var), axis=j),
        name="squares",
    )
    scaled = te.compute(
        leading,
        lambda *at: (
            (tirx.truncdiv(squares(*at), _long(count)) + _long(attrs["epsilon"]))
            << _long(2 * ROOT_BITS)
        ),
        name="scaled",
    )
    root = _root(leading, scaled)
    reciprocal = te.compute(
        leading,
        lambda *at: tirx.truncdiv(_long(2**RECIPROCAL_BITS), tirx.max(root(*at), _long(1))),
        name="reciprocal",
    )

    def element(*at: ir.Expr) -> ir.Expr:
        row = at[:-1] or (_long(0),)
        shift = _long(RECIPROCAL_BITS - ROOT_BITS - NORMAL_BITS)
        normal = (distance(row, at[-1]) * reciprocal(*row)) >> shift
        value = normal * weight(at[-1]).astype("int64") + bias(at[-1]).astype("int64")
        return clamped(attrs, value >> _long(attrs["shift"]))

    return te.compute(x.shape, element, name="layer_norm")


def _root(shape: list[int], value: te.Tensor) -> te.Tensor:
    """``floor(sqrt(value))``, bit by bit from 2^30 down: a reduction whose order matters."""

    def combine(left: tuple[ir.Expr, ...], right: tuple[ir.Expr, ...]) -> tuple[ir.Expr, ...]:
        tried = left[0] + right[0]
        return tirx.Select(tried * tried <= right[1], tried, left[0]), right[1]

    keep = te.comm_reducer(combine, lambda *dtypes: tuple(tirx.const(0, d) for d in dtypes))
    bit = te.reduce_axis((0, 31), name="bit")
    found = te.compute(
        shape,
        lambda *at: keep((_long(1) << (_long(30) - bit.var.astype("int64")), value(*at)), axis=bit),
        name="root",
    )
    return found[0]
