"""``fewbits.fake_quantize`` and ``fewbits.outlier_columns`` as loops."""

from __future__ import annotations

import numpy as np
from tvm import ir, relax, te, tirx
from tvm.ir import prim

from ...formats.integer import Integer
from ...formats.parse import parse_format
from .legalize import STAGE, legalizes
from .rounding import levels_and_thresholds

_SMALLEST = 2.0**-126


def _float(value: float) -> ir.Expr:
    return prim.FloatImm("float32", float(np.float32(value)))


@legalizes("fewbits.fake_quantize")
def _fake_quantize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    number_format = parse_format(str(call.attrs["format"]))
    per_token = str(call.attrs["granularity"]) == "token"
    arguments: list[relax.Expr] = list(call.args)
    integer = isinstance(number_format, Integer)
    if not integer:
        levels, thresholds = (t.numpy() for t in levels_and_thresholds(number_format.name))
        # A complete tree of thresholds: what is missing is never exceeded.
        depth = len(thresholds).bit_length()
        whole = np.full((1 << depth) - 1, np.inf, np.float32)
        whole[: len(thresholds)] = thresholds
        arguments += [relax.const(levels), relax.const(whole)]

    def fake_quantize(x: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        tables = [] if integer else rest[-2:]
        static = len(rest) > len(tables)
        scale = rest[0] if static else _dynamic_scale(x, number_format.reach, per_token)

        def scale_at(at: tuple[ir.Expr, ...]) -> ir.Expr:
            return scale[() if len(scale.shape) == 0 else at[:-1] if per_token else (0,)]

        quotient = te.compute(x.shape, lambda *at: x[at] / scale_at(at), name="quotient")
        if isinstance(number_format, Integer):
            low, high = _float(number_format.minimum), _float(number_format.maximum)
            return te.compute(
                x.shape,
                lambda *at: (
                    tirx.max(tirx.min(tirx.nearbyint(quotient[at]), high), low) * scale_at(at)
                ),
                name="fake_quantized",
            )
        levels, thresholds = tables
        place = _search(quotient, thresholds)
        return te.compute(
            x.shape, lambda *at: levels[place[at]] * scale_at(at), name="fake_quantized"
        )

    return builder.call_te(fake_quantize, *arguments, primfunc_name_hint="fake_quantize")


def _dynamic_scale(x: te.Tensor, reach: float, per_token: bool) -> te.Tensor:
    """The largest magnitude, of the tensor ``[1]`` or along its last axis, over the reach."""
    column = te.reduce_axis((0, x.shape[-1]))
    rows = list(x.shape[:-1])
    magnitude = te.compute(
        rows, lambda *at: te.max(tirx.abs(x[(*at, column)]), axis=column), name="magnitude"
    )
    kept = rows
    if not per_token:
        # Rows first: they can be shared among threads, and their elements among vector lanes.
        axes = [te.reduce_axis((0, size)) for size in rows]
        kept, of_rows = [1], magnitude
        if axes:
            magnitude = te.compute(
                kept, lambda _: te.max(of_rows[tuple(axes)], axis=axes), name="largest"
            )
        else:
            magnitude = te.compute(kept, lambda _: of_rows[()], name="largest")
    return te.compute(
        kept,
        lambda *at: tirx.max(magnitude[at] / _float(reach), _float(_SMALLEST)),
        name="scale",
    )


def _search(values: te.Tensor, thresholds: te.Tensor) -> te.Tensor:
    """How many of ``2**n - 1`` ascending thresholds each value exceeds: a step for each bit."""
    half = (int(thresholds.shape[0]) + 1) // 2
    found = te.compute(values.shape, lambda *_: prim.IntImm("int32", 0), name="place")
    while half:
        found, half = _step(values, thresholds, found, half), half // 2
    return found


def _step(values: te.Tensor, thresholds: te.Tensor, found: te.Tensor, half: int) -> te.Tensor:
    return te.compute(
        values.shape,
        lambda *at: (
            found[at]
            + tirx.Select(
                thresholds[found[at] + (half - 1)] < values[at],
                prim.IntImm("int32", half),
                prim.IntImm("int32", 0),
            )
        ),
        name="place",
        attrs={STAGE: 1},
    )


@legalizes("fewbits.outlier_columns")
def _outlier_columns(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    threshold, capacity = float(call.attrs["threshold"]), int(call.attrs["capacity"])

    def outlier_columns(x: te.Tensor) -> te.Tensor:
        columns = x.shape[-1]
        if threshold <= 0:
            return te.compute((columns,), lambda _: _float(0), name="outliers")
        rows = [te.reduce_axis((0, size)) for size in x.shape[:-1]]
        largest = te.compute(
            (columns,),
            lambda k: te.max(tirx.abs(x[(*rows, k)]), axis=rows) if rows else tirx.abs(x[k]),
            name="magnitude",
        )
        mask = te.compute(
            (columns,),
            lambda k: tirx.if_then_else(largest[k] >= _float(threshold), _float(1), _float(0)),
            name="mask",
        )
        k = te.reduce_axis((0, columns))
        count = te.compute((1,), lambda _: te.sum(mask[k], axis=k), name="count")
        return te.compute(
            (columns,),
            lambda k: tirx.if_then_else(count[0] > _float(capacity), _float(1), mask[k]),
            name="outliers",
        )

    return builder.call_te(outlier_columns, call.args[0], primfunc_name_hint="outlier_columns")
