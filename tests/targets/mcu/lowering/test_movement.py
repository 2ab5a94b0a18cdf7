"""Movement of data equals the oracle on every kind of core, also in shared memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from fewbits.targets.mcu.lowering.movement import (
    copy_call,
    lower_concat,
    lower_pad,
    lower_permute_dims,
    lower_resize2d,
    lower_split,
    lower_strided_slice,
    lower_take,
)
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.program import Buffer
from fewbits.targets.mcu.target import get_target
from tvm import relax


def values(shape: tuple[int, ...], dtype: str = "int8") -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    if dtype == "float32":
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(-100, 100, shape).astype(dtype)


def test_permute_dims(target: str, tools: Mapping[str, Any]) -> None:
    orders = [
        ((4, 6), (1, 0), "int8"), ((1, 5, 7, 3), (0, 3, 1, 2), "int8"),
        ((2, 3, 4, 5), (0, 2, 3, 1), "int8"), ((2, 3, 4, 5), (3, 2, 1, 0), "int8"),
        ((3, 5, 8), (1, 0, 2), "int8"), ((3, 5, 2), (2, 1, 0), "float32"),
        ((2, 3, 2, 3, 2), (0, 3, 4, 1, 2), "int8"), ((6, 1, 1), (1, 0, 2), "int8"),
        ((2, 3, 2, 3, 4), (4, 3, 2, 1, 0), "int8"), ((3, 4, 5), None, "int16"),
        ((4, 3, 6), (1, 0, 2), "int32"),
    ]  # fmt: skip
    cases = [
        tools["case"](lambda x, a=axes: relax.op.permute_dims(x, a), (values(shape, dtype),))
        for shape, axes, dtype in orders
    ]
    tools["assert_exact"](lower_permute_dims, cases, target)


def test_strided_slice(target: str, tools: Mapping[str, Any]) -> None:
    slices = [
        ((4, 6), [1], [1], [5], None), ((9,), [0], [0], [9], [2]), ((9,), [0], [8], [-10], [-1]),
        ((9, 3), [0], [7], [1], [-3]), ((2, 6, 6, 3), [1, 2], [1, 2], [5, 6], [2, 1]),
        ((1, 6, 6, 3), [1, 2, 3], [-4, 0, 1], [-1, 100, 2], None), ((40,), [0], [5], [39], None),
    ]  # fmt: skip
    cases = [
        tools["case"](
            lambda x, a=axes, b=begin, e=end, s=strides: relax.op.strided_slice(x, a, b, e, s),
            (values(shape, dtype),),
        )
        for shape, axes, begin, end, strides in slices
        for dtype in ("int8", "float32")
    ]
    tools["assert_exact"](lower_strided_slice, cases, target)


def test_concat(target: str, tools: Mapping[str, Any]) -> None:
    joins = [
        ([(2, 3), (2, 5)], 1, "int8"), ([(4,), (1,), (7,)], 0, "int8"),
        ([(1, 2, 2, 3), (1, 2, 2, 8), (1, 2, 2, 1)], -1, "int8"),
        ([(2, 1)] * 8, 1, "int8"), ([(2, 2), (3, 2)], 0, "float32"),
    ]  # fmt: skip
    cases = [
        tools["case"](lambda *x, a=axis: relax.op.concat(x, a), [values(s, dtype) for s in shapes])
        for shapes, axis, dtype in joins
    ]
    tools["assert_exact"](lower_concat, cases, target)


def test_split(target: str, tools: Mapping[str, Any]) -> None:
    parts = [
        ((2, 6), 3, 1, "int8"), ((7, 3), [2, 3], 0, "int8"), ((2, 8, 3), 4, 1, "int8"),
        ((2, 5), 2, -1, "float32"), ((16,), 8, 0, "int8"), ((3, 4), 1, 1, "int8"),
    ]  # fmt: skip
    cases = [
        tools["case"](lambda x, w=where, a=axis: relax.op.split(x, w, a), (values(shape, dtype),))
        for shape, where, axis, dtype in parts
    ]
    tools["assert_exact"](lower_split, cases, target)


def test_pad(target: str, tools: Mapping[str, Any]) -> None:
    pads = [
        ((1, 5, 4, 3), [0, 0, 1, 2, 3, 0, 0, 0], -7, "int8"), ((9,), [2, 3], 5, "int8"),
        ((2, 3, 4), [1, 1, 0, 0, 0, 2], 0, "int8"), ((2, 3, 2, 3), [1, 0] * 4, -128, "int8"),
        ((3, 4), [1, 0, 2, 1], 0, "float32"), ((4, 4), [0, 0, 0, 0], 0, "int8"),
        ((2, 20), [0, 1, 0, 4], 127, "int8"), ((3, 4), [0, 2, 0, 0], 3, "int8"),
    ]  # fmt: skip
    cases = [
        tools["case"](
            lambda x, w=width, v=value: relax.op.nn.pad(x, w, "constant", v),
            (values(shape, dtype),),
        )
        for shape, width, value, dtype in pads
    ]
    tools["assert_exact"](lower_pad, cases, target)


def test_take(target: str, tools: Mapping[str, Any]) -> None:
    picks = [
        ((5, 3), np.array([4, 0, 2]), 0, "fast"),
        ((2, 6, 2), np.array([[1, -1], [3, 0]]), 1, "fast"),
        ((2, 9), np.array([0, 3, 8]), 1, "fast"), ((4, 4), np.array([-3, 9, 1]), 0, "clip"),
        ((4, 4), np.array([-3, 9, 1]), 1, "wrap"), ((6,), np.array([5, 0]), None, "fast"),
        ((4, 5), np.array(2), 0, "fast"),
    ]  # fmt: skip
    cases = [
        tools["case"](
            lambda x, i, a=axis, m=mode: relax.op.take(x, i, a, m),
            (values(shape, dtype), index.astype(np.int64)),
            (1,),
        )
        for shape, index, axis, mode in picks
        for dtype in ("int8", "float32")
    ]
    tools["assert_exact"](lower_take, cases, target)


def test_resize2d(target: str, tools: Mapping[str, Any]) -> None:
    modes = [
        ("half_pixel", "round_prefer_floor"), ("asymmetric", "floor"), ("align_corners", "round"),
        ("half_pixel", "ceil"),
    ]  # fmt: skip
    shapes = [((1, 4, 3, 2), (8, 6), "NHWC"), ((2, 3, 5, 4), (3, 7), "NCHW")]
    cases = [
        tools["case"](
            lambda x, s=size, t=layout, m=mode, r=rounding: relax.op.image.resize2d(
                x, s, layout=t, method="nearest_neighbor", coordinate_transformation_mode=m,
                rounding_method=r,
            ),
            (values(shape),),
        )
        for shape, size, layout in shapes
        for mode, rounding in modes
    ]  # fmt: skip
    tools["assert_exact"](lower_resize2d, cases, target)


@pytest.mark.parametrize(
    ("rule", "operator"),
    [
        (lower_pad, lambda x: relax.op.nn.pad(x, [1, 1, 0, 0], "reflect")),
        (lower_pad, lambda x: relax.op.nn.pad(x, [0, 1, 0, 0], "constant", 0.5)),
        (lower_split, lambda x: relax.op.split(x, 9, 0)),
        (lower_take, lambda x, i: relax.op.take(x, i, 0)),
    ],
)
def test_what_rules_leave_to_the_general_route(
    rule: Callable[..., Any], operator: Callable[..., Any], tools: Mapping[str, Any]
) -> None:
    extra = [np.array([0, 1])] if rule is lower_take else []
    one = tools["case"](operator, [values((9, 4), "float32"), *extra])
    assert one.lower(rule, "c") is None


def test_copies(target: str) -> None:
    x = values((3, 13))
    one, other = Buffer("x", x.shape, "int8"), Buffer("y", x.shape, "int8")
    probe = Probe([copy_call("copy", one, other)], get_target(target))
    assert (probe.run(0, [x]).outputs[0] == x).all()


def test_slices_may_lie_on_their_input(tools: Mapping[str, Any]) -> None:
    forward = tools["case"](lambda x: relax.op.strided_slice(x, [0], [1], [9]), (values((9, 2)),))
    backward = tools["case"](
        lambda x: relax.op.strided_slice(x, [0], [8], [0], [-1]), (values((9, 2)),)
    )
    assert forward.lower(lower_strided_slice, "c").overlap == (0,)
    assert backward.lower(lower_strided_slice, "c").overlap == (None,)
