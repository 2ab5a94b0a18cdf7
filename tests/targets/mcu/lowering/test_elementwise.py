"""Additions, products, tables and softmax equal the oracle bit for bit on every kind of core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fewbits.ops.integer.softmax import exponential_table
from fewbits.targets.mcu.lowering.elementwise import (
    broadcast_walk,
    lower_add,
    lower_lookup,
    lower_multiply,
    lower_softmax,
)
from fewbits.targets.mcu.target import McuTarget

SHAPES = [
    ((1, 4, 4, 8), (1, 4, 4, 8)),
    ((3, 7), (3, 7)),
    ((1,), (1,)),
    ((2, 3, 4, 8), (8,)),
    ((2, 3, 4, 8), (2, 1, 1, 8)),
    ((2, 3, 1, 5), (1, 3, 4, 1)),
    ((8,), (2, 4, 8)),
    ((5, 1, 3), (1, 4, 3)),
    ((16,), (1,)),
    ((4, 6), (4, 1)),
]


def codes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


def test_add(target: str | McuTarget, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(1)
    cases = []
    for i, (a, b) in enumerate(SHAPES):
        shift = int(rng.integers(8, 16))
        attributes = {
            "a_multiplier": int(rng.uniform(0.3, 1.2) * 2**shift / (1 + i % 2)) % 32767,
            "b_multiplier": int(rng.uniform(-1.2, -0.3) * 2**shift) if i % 3 == 0 else 9000,
            "bias": int(rng.integers(-(2**18), 2**18)), "shift": shift,
            "minimum": -128 if i % 2 else -77, "maximum": 127 if i % 3 else 50,
        }  # fmt: skip
        constants = (1,) if i in (3, 9) else (0,) if i == 6 else ()
        cases.append(
            tools["case"]("fewbits.add", (codes(rng, a), codes(rng, b)), constants, **attributes)
        )
    tools["assert_exact"](lower_add, cases, target)


def test_add_of_extremes(target: str | McuTarget, tools: Mapping[str, Any]) -> None:
    a = np.repeat(np.array([-128, -1, 0, 127], np.int8), 8)
    b = np.tile(np.array([-128, -1, 0, 127], np.int8), 8)
    cases = [
        tools["case"](
            "fewbits.add", (a, b), a_multiplier=am, b_multiplier=bm, bias=bias, shift=shift,
            minimum=-128, maximum=127,
        )
        for am, bm, bias, shift in (
            (32767, 32767, 2**20, 15), (-32768, -32768, 0, 14), (1, 1, 0, 0), (3, -2, -7, 1),
            (32767, -32768, -(2**30), 31),
        )
    ]  # fmt: skip
    tools["assert_exact"](lower_add, cases, target)


def test_multiply(target: str, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(2)
    cases = []
    for i, (a, b) in enumerate(SHAPES):
        shift = int(rng.integers(0, 4))
        attributes = {
            "a_zero": int(rng.integers(-128, 128)), "b_zero": int(rng.integers(-128, 128)),
            "bias": int(rng.integers(-(2**15), 2**15)), "shift": shift,
            "multiplier": int(rng.uniform(0.5, 1) * 2**26 / 2**shift),
            "minimum": -128 if i % 2 else -77, "maximum": 127 if i % 3 else 50,
        }  # fmt: skip
        constants = (1,) if i in (3, 9) else (0,) if i == 6 else ()
        values = (codes(rng, a), codes(rng, b))
        cases.append(tools["case"]("fewbits.multiply", values, constants, **attributes))
    tools["assert_exact"](lower_multiply, cases, target)


def test_lookup(target: str, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(3)
    values = [np.arange(-128, 128).astype(np.int8), codes(rng, (3, 5)), codes(rng, (1,))]
    cases = [tools["case"]("fewbits.lookup", (x, codes(rng, (256,))), (1,)) for x in values]
    tools["assert_exact"](lower_lookup, cases, target)


def test_softmax(target: str, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(4)
    cases = []
    for shape, scale in (
        ((1, 12), 0.1), ((4, 2), 0.05), ((2, 3, 10), 0.3), ((1, 1), 0.1), ((2, 300), 0.01),
        ((3, 7), 2.0),
    ):  # fmt: skip
        table = exponential_table(scale)
        attributes = {"multiplier": 2**8, "bias": -(2**23) + 2**15, "shift": 16}
        cases.append(
            tools["case"](
                "fewbits.softmax", (codes(rng, shape), table), (1,), **attributes,
                minimum=-128, maximum=127,
            )
        )  # fmt: skip
    cases.append(
        tools["case"](
            "fewbits.softmax", (np.full((2, 5), -128, np.int8), table), (1,), multiplier=30000,
            bias=5, shift=15, minimum=-20, maximum=100,
        )
    )  # fmt: skip
    tools["assert_exact"](lower_softmax, cases, target)


def test_walks_are_as_short_as_can_be() -> None:
    assert broadcast_walk((2, 3, 4), [(2, 3, 4), (2, 3, 4)]) == (
        [1, 1, 1, 24],
        [[0, 0, 0, 1], [0, 0, 0, 1]],
    )
    assert broadcast_walk((2, 3, 4), [(2, 3, 4), (4,)]) == (
        [1, 1, 6, 4],
        [[0, 0, 4, 1], [0, 0, 0, 1]],
    )
    assert broadcast_walk((2, 2, 2, 2, 2), [(2, 1, 2, 1, 2), (1, 2, 1, 2, 1)]) is None


def test_outputs_share_memory_with_whole_operands_only(tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(5)
    values = (codes(rng, (2, 8)), codes(rng, (8,)))
    attributes = {"a_multiplier": 1, "b_multiplier": 1, "bias": 0, "shift": 0}
    one = tools["case"]("fewbits.add", values, **attributes, minimum=-128, maximum=127)
    assert one.lower(lower_add, "cortex-m4").overlap == (0, None)


def test_dsp_path_under_sanitizers(halves_on_host: McuTarget, tools: Mapping[str, Any]) -> None:
    test_add(halves_on_host, tools)
    test_add_of_extremes(halves_on_host, tools)
