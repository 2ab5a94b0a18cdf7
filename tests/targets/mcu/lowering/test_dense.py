"""Fully connected layers equal the oracle bit for bit on every kind of core."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from fewbits.targets.mcu.lowering.dense import lower_dense
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.target import get_target

# leading dimensions, depth, outputs
SHAPES = [
    ((1,), 64, 12), ((), 40, 10), ((1, 1), 8, 17), ((1,), 129, 8), ((1,), 3, 2), ((1,), 5, 1),
    ((1,), 17, 31), ((1,), 1, 9), ((2,), 30, 11), ((2, 3), 16, 6), ((7,), 33, 7), ((1,), 640, 16),
    ((3,), 66, 1),
]  # fmt: skip


def make(tools: Any, rng: np.random.Generator, shape: tuple, **changes: int) -> Any:
    leading, depth, outputs = shape
    x = rng.integers(-128, 128, (*leading, depth)).astype(np.int8)
    weight = rng.integers(-127, 128, (outputs, depth)).astype(np.int8)
    attributes = {"shift": 0, "minimum": -128, "maximum": 127, "scale": 1.0, "zero_point": 0}
    attributes |= changes
    sums = x.astype(np.int64) @ weight.T.astype(np.int64)
    bias, multiplier = tools["requantization"](rng, sums, attributes["shift"])
    return tools["case"]("fewbits.dense", [x, weight, bias, multiplier], [1, 2, 3], **attributes)


def test_every_shape(tools: Any, target: str) -> None:
    rng = np.random.default_rng(1)
    cases = [make(tools, rng, shape) for shape in SHAPES]
    cases += [make(tools, rng, shape, shift=2, minimum=-9) for shape in SHAPES[:3]]
    cases += [make(tools, rng, shape, minimum=0, maximum=99) for shape in SHAPES[:3]]
    tools["assert_exact"](lower_dense, cases, target)


def test_every_shift(tools: Any, target: str) -> None:
    """Large scales shift accumulators; from 1/2 on, and with more than 8 bits, without SMLAD."""
    rng = np.random.default_rng(6)
    shapes = [((1,), 24, 19), ((7,), 13, 5), ((1,), 2, 3)]
    cases = [make(tools, rng, shape, shift=shift) for shape in shapes for shift in range(1, 10)]
    tools["assert_exact"](lower_dense, cases, target)


def test_shifts_keep_the_fast_kernels(tools: Any) -> None:
    case = make(tools, np.random.default_rng(7), ((1,), 128, 32), shift=4)
    quick, plain = case.lower(lower_dense, "cortex-m4"), case.lower(lower_dense, "cortex-m0plus")
    assert quick.function == "fb_dense_pairs"
    assert plain.arguments[-1] == 1  # FB_BYTES_WIDE
    assert quick.note is plain.note is None


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs the machine's own gcc")
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_portable_twins_under_sanitizers(tools: Any, core: str) -> None:
    rng = np.random.default_rng(2)
    cases = [make(tools, rng, shape, shift=s) for shape in SHAPES for s in (0, 3)]
    calls = [case.lower(lower_dense, core) for case in cases]
    probe = Probe(calls, get_target("c"), sanitize=True)
    for i, case in enumerate(cases):
        got = probe.run(i, [case.values[0]]).outputs[0]
        np.testing.assert_array_equal(got, case.expected[0])


def test_rows_at_any_address(tools: Any, target: str) -> None:
    if target == "c":
        pytest.skip("the host's buffers are where malloc puts them")
    rng = np.random.default_rng(3)
    case = make(tools, rng, ((1,), 37, 9))
    probe = Probe([case.lower(lower_dense, target)], get_target(target))
    got = probe.run(0, [case.values[0]], misalign=3).outputs[0]
    np.testing.assert_array_equal(got, case.expected[0])


def test_one_row_needs_no_scratch_memory(tools: Any, target: str) -> None:
    case = make(tools, np.random.default_rng(4), ((1,), 640, 16))
    assert case.lower(lower_dense, target).scratch == 0


def test_many_rows_work_in_place(tools: Any, target: str) -> None:
    case = make(tools, np.random.default_rng(5), ((9,), 16, 16))
    assert case.lower(lower_dense, target).overlap == (0,)
