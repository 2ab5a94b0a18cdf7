"""Depthwise convolutions equal the oracle bit for bit on every kind of core."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fewbits.targets.mcu.lowering.depthwise import lower_depthwise
from fewbits.targets.mcu.program import Buffer
from fewbits.targets.mcu.target import McuTarget, get_target

# batch, height, width, channels, multiples, kernel, strides, dilation, padding (t, l, b, r)
SHAPES = [
    (1, 25, 5, 6, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (1, 8, 8, 4, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (1, 7, 6, 3, 1, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1)),
    (2, 6, 7, 3, 1, (3, 3), (2, 2), (1, 1), (0, 0, 1, 1)),
    (1, 1, 9, 5, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (1, 3, 3, 5, 2, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (1, 2, 1, 5, 1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (2, 9, 4, 3, 1, (5, 5), (1, 1), (1, 1), (2, 2, 2, 2)),
    (1, 9, 13, 3, 1, (3, 3), (1, 1), (2, 2), (2, 2, 2, 2)),
    (1, 1, 30, 4, 1, (1, 7), (1, 1), (1, 1), (0, 6, 0, 0)),
    (1, 30, 1, 4, 3, (4, 1), (2, 1), (1, 1), (1, 0, 0, 0)),
    (1, 5, 5, 3, 1, (5, 5), (1, 1), (1, 1), (0, 0, 0, 0)),
    (1, 6, 9, 2, 1, (2, 3), (1, 2), (2, 1), (1, 0, 2, 3)),
    (1, 4, 4, 3, 1, (1, 1), (2, 2), (1, 1), (0, 0, 0, 0)),
    (1, 8, 8, 2, 1, (3, 3), (1, 1), (1, 1), (0, 2, 0, 2)),
    (2, 3, 3, 2, 1, (3, 3), (1, 1), (1, 1), (2, 2, 2, 2)),
]


def make(tools: dict, rng: np.random.Generator, shape: tuple, **changes: int):
    n, h, w, c, multiples, kernel, strides, dilation, padding = shape
    x = rng.integers(-128, 128, (n, h, w, c)).astype(np.int8)
    weight = rng.integers(-127, 128, (c * multiples, *kernel, 1)).astype(np.int8)
    attributes = {
        "strides": strides, "padding": padding, "dilation": dilation, "groups": c,
        "input_zero": int(rng.integers(-128, 128)), "shift": int(rng.choice([0, 0, 2])),
        "minimum": -128, "maximum": 127,
    } | changes  # fmt: skip
    sums = np.abs(weight.astype(np.int64)).reshape(1, c * multiples, -1).sum(axis=2) * 40
    bias, multiplier = tools["requantization"](rng, sums, attributes["shift"])
    return tools["case"]("fewbits.conv2d", (x, weight, bias, multiplier), (1, 2, 3), **attributes)


def test_shapes(target: str, tools: dict) -> None:
    rng = np.random.default_rng(1)
    cases = [make(tools, rng, shape) for shape in SHAPES]
    cases.append(make(tools, rng, SHAPES[0], minimum=-100, maximum=90, shift=1))
    cases.append(make(tools, rng, SHAPES[1], minimum=0, shift=9))
    cases.append(make(tools, rng, SHAPES[2], maximum=3))
    tools["assert_exact"](lower_depthwise, cases, target)


def test_random_shapes(target: str, tools: dict) -> None:
    rng = np.random.default_rng(2)
    cases = []
    while len(cases) < 12:
        kernel = tuple(rng.integers(1, 6, 2).tolist())
        strides, dilation = rng.integers(1, 4, 2).tolist(), rng.integers(1, 3, 2).tolist()
        if len(cases) % 2:
            kernel, strides, dilation = (3, 3), [len(cases) % 4 // 2 + 1] * 2, [1, 1]
        padding = [*rng.integers(0, 3, 4).tolist()]
        n, h, w, c = rng.integers(1, [3, 13, 13, 7]).tolist()
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        if h + padding[0] + padding[2] < reach[0] or w + padding[1] + padding[3] < reach[1]:
            continue
        shape = (n, h, w, c, int(rng.integers(1, 3)), kernel, strides, dilation, padding)
        cases.append(make(tools, rng, shape))
    tools["assert_exact"](lower_depthwise, cases, target)


def test_runs_in_place_with_one_plane_of_scratch(tools: dict) -> None:
    one = make(tools, np.random.default_rng(0), (1, 48, 48, 8, *SHAPES[0][4:]))
    call = one.lower(lower_depthwise, "cortex-m4")
    assert call.overlap == (0,) and call.overlap_exact
    assert call.scratch == 50 * 50 * 2
    assert call.macs == 8 * (3 * 48 - 2) ** 2
    assert one.lower(lower_depthwise, "cortex-m0plus").scratch == 50 * 50 + 36


def test_multiplied_channels_cannot_share_memory(tools: dict) -> None:
    one = make(tools, np.random.default_rng(0), SHAPES[5])
    assert one.lower(lower_depthwise, "cortex-m4").overlap == (None,)


def test_other_groups_are_left_to_the_general_convolution(tools: dict) -> None:
    one = make(tools, np.random.default_rng(0), SHAPES[1])
    attributes = dict(one.call.attrs) | {"groups": 2}
    call = SimpleNamespace(attrs=attributes)
    x, y = Buffer("x", (1, 8, 8, 4), "int8"), Buffer("y", (1, 8, 8, 4), "int8")
    constants = {i: one.values[i] for i in one.constants}
    assert lower_depthwise("l", call, [x], y, constants, get_target("c")) is None


@pytest.mark.parametrize("name", ["cortex-m7", "cortex-m33"])
def test_other_dsp_cores(name: str, tools: dict) -> None:
    rng = np.random.default_rng(3)
    tools["assert_exact"](lower_depthwise, [make(tools, rng, s) for s in SHAPES[:4]], name)


def test_dsp_path_under_sanitizers(halves_on_host: McuTarget, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(4)
    cases = [make(tools, rng, shape) for shape in SHAPES]
    tools["assert_exact"](lower_depthwise, cases, halves_on_host)
