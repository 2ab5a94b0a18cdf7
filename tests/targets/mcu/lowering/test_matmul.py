"""Products of two run-time matrices equal the oracle bit for bit on every kind of core."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from fewbits.targets.mcu.lowering.matmul import lower_matmul
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.target import get_target

# shape of a, shape of b
SHAPES = [
    ((4, 8), (8, 4)), ((1, 5), (5, 1)), ((5, 16), (16, 9)), ((3, 1), (1, 7)), ((6, 13), (13, 6)),
    ((7, 31), (31, 11)), ((9, 34), (34, 3)), ((3, 2), (2, 2)), ((6, 29), (29, 1)),
    ((2, 3, 4), (2, 4, 5)), ((2, 2, 3, 5), (2, 2, 5, 3)), ((3, 4, 6), (6, 8)), ((4, 6), (3, 6, 8)),
]  # fmt: skip


def make(tools: Any, rng: np.random.Generator, shapes: tuple, **changes: int) -> Any:
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes)
    attributes = {
        "a_zero": int(rng.integers(-128, 128)), "b_zero": int(rng.integers(-128, 128)),
        "shift": 0, "minimum": -128, "maximum": 127, "scale": 1.0, "zero_point": 0, **changes,
    }  # fmt: skip
    left, right = a.astype(np.int64) - attributes["a_zero"], b.astype(np.int64)
    sums = (left @ (right - attributes["b_zero"])).reshape(-1, 1)
    bias, multiplier = tools["requantization"](rng, sums, attributes["shift"])
    attributes |= {"bias": int(bias[0]), "multiplier": int(multiplier[0])}
    return tools["case"]("fewbits.matmul", [a, b], **attributes)


def test_every_shape(tools: Any, target: str) -> None:
    rng = np.random.default_rng(1)
    cases = [make(tools, rng, shape) for shape in SHAPES]
    cases += [make(tools, rng, SHAPES[2], shift=3, minimum=-5)]
    cases += [make(tools, rng, SHAPES[2], a_zero=-128, b_zero=127, minimum=0)]
    tools["assert_exact"](lower_matmul, cases, target)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs the machine's own gcc")
def test_portable_twin_under_sanitizers(tools: Any) -> None:
    rng = np.random.default_rng(5)
    cases = [make(tools, rng, shape) for shape in SHAPES]
    probe = Probe(
        [case.lower(lower_matmul, "cortex-m4") for case in cases], get_target("c"), sanitize=True
    )
    for i, case in enumerate(cases):
        got = probe.run(i, list(case.values)).outputs[0]
        np.testing.assert_array_equal(got, case.expected[0])


def test_attention_is_quick_with_smlad(tools: Any) -> None:
    case = make(tools, np.random.default_rng(3), ((4, 32, 32), (4, 32, 32)))
    (instructions,) = tools["assert_exact"](lower_matmul, [case], "cortex-m4")
    assert instructions < 1.5 * 4 * 32**3


def test_one_right_matrix_makes_one_product_of_many_rows(tools: Any) -> None:
    case = make(tools, np.random.default_rng(4), ((3, 4, 6), (6, 8)))
    assert case.lower(lower_matmul, "cortex-m4").arguments[4:6] == (1, 12)


def test_a_batch_that_repeats_in_part_is_left_to_the_generic_route(tools: Any) -> None:
    case = make(tools, np.random.default_rng(2), ((2, 1, 3, 4), (2, 2, 4, 3)))
    assert case.lower(lower_matmul, "c") is None
