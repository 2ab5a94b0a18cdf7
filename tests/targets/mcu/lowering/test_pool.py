"""Pooling equals the oracle bit for bit on every kind of core, also in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fewbits.targets.mcu.lowering.pool import lower_average_pool2d, lower_max_pool2d
from fewbits.targets.mcu.target import McuTarget

# shape, kernel, strides, padding (t, l, b, r), dilation
GEOMETRIES = [
    ((1, 25, 5, 8), (25, 5), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((2, 8, 8, 4), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((1, 7, 6, 3), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 7, 9, 6), (3, 2), (2, 3), (1, 0, 0, 1), (1, 1)),
    ((1, 16, 17, 5), (16, 17), (16, 17), (0, 0, 0, 0), (1, 1)),
    ((1, 16, 16, 4), (16, 16), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((2, 5, 4, 4), (3, 3), (2, 1), (2, 2, 2, 2), (1, 1)),
    ((1, 9, 9, 7), (3, 2), (2, 2), (1, 1, 1, 1), (2, 3)),
    ((1, 1, 12, 2), (1, 4), (1, 4), (0, 2, 0, 2), (1, 1)),
]


def attributes(geometry: tuple) -> dict[str, Any]:
    _, kernel, strides, padding, dilation = geometry
    return {"kernel": kernel, "strides": strides, "padding": padding, "dilation": dilation}


def average(tools: Mapping[str, Any], rng: np.random.Generator, geometry: tuple, include: int):
    shape, kernel = geometry[:2]
    x = rng.integers(-128, 128, shape).astype(np.int8)
    counts = np.arange(1, kernel[0] * kernel[1] + 1)
    shift = 7
    multiplier = np.minimum(np.rint(2.0 ** (32 - shift) / counts * 1.1), 2.0**31 - 1)
    bias = np.rint((rng.uniform(-20, 20) + 0.5) * 2.0**32 / multiplier)
    return tools["case"](
        "fewbits.average_pool2d",
        (x, bias.astype(np.int32), multiplier.astype(np.int32)),
        (1, 2),
        **attributes(geometry),
        shift=shift,
        minimum=-120 if include else -128,
        maximum=127,
        input_zero=int(rng.integers(-128, 128)),
        count_include_pad=include,
    )


def test_average_pool(target: str | McuTarget, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(1)
    plain = [g for g in GEOMETRIES if g[4] == (1, 1)]
    cases = [average(tools, rng, g, include) for g in plain for include in (0, 1)]
    tools["assert_exact"](lower_average_pool2d, cases, target)


def test_average_of_extremes_does_not_overflow(target: str, tools: Mapping[str, Any]) -> None:
    cases = []
    for value in (-128, 127):
        one = average(tools, np.random.default_rng(0), GEOMETRIES[5], 0)
        one.values[0][:] = value
        cases.append(one)
    tools["assert_exact"](lower_average_pool2d, cases, target)


def test_max_pool(target: str, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(2)
    cases = []
    for geometry in GEOMETRIES:
        x = rng.integers(-128, 128, geometry[0]).astype(np.int8)
        cases.append(tools["case"]("fewbits.max_pool2d", (x,), **attributes(geometry)))
    tools["assert_exact"](lower_max_pool2d, cases, target)


def test_global_pooling_shares_its_input(tools: Mapping[str, Any]) -> None:
    one = average(tools, np.random.default_rng(3), GEOMETRIES[0], 0)
    assert one.lower(lower_average_pool2d, "c").overlap == (0,)


def test_dilated_averages_are_left_to_the_general_route(tools: Mapping[str, Any]) -> None:
    one = average(tools, np.random.default_rng(4), GEOMETRIES[7], 0)
    assert one.lower(lower_average_pool2d, "c") is None


def test_dsp_paths_under_sanitizers(halves_on_host: McuTarget, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(5)
    test_average_pool(halves_on_host, tools)
    for c in (4, 8):
        x = rng.integers(-128, 128, (1, 5, 6, c)).astype(np.int8)
        geometry = ((1, 5, 6, c), (3, 2), (1, 2), (1, 0, 1, 1), (1, 1))
        one = tools["case"]("fewbits.max_pool2d", (x,), **attributes(geometry))
        tools["assert_exact"](lower_max_pool2d, [one], halves_on_host)
