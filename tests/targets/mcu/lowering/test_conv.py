"""Convolutions equal the oracle bit for bit on every kind of core, apart and in place."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
from fewbits.targets.mcu.lowering.conv import lower_conv2d
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.target import get_target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# batch, height, width, in, out, kernel, strides, padding (t, l, b, r), dilation, groups
SHAPES = {
    "pointwise": (1, 5, 3, 16, 8, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "pointwise that expands": (1, 4, 4, 8, 18, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "pointwise, odd channels": (1, 3, 5, 7, 5, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "pointwise with stride": (1, 5, 5, 4, 6, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "pointwise with padding": (1, 3, 3, 5, 6, (1, 1), (1, 1), (1, 0, 1, 2), (1, 1), 1),
    "long depth": (1, 2, 2, 140, 6, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "single output channel": (1, 3, 3, 6, 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "single output channel per group": (1, 4, 5, 6, 2, (2, 3), (1, 1), (1, 1, 0, 1), (1, 1), 2),
    "first layer of speech": (1, 13, 10, 1, 8, (10, 4), (2, 2), (4, 1, 5, 1), (1, 1), 1),
    "first layer of vision": (1, 9, 9, 3, 8, (3, 3), (2, 2), (0, 0, 1, 1), (1, 1), 1),
    "three by three": (1, 6, 5, 8, 7, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "two images": (2, 5, 4, 4, 6, (3, 2), (2, 1), (1, 0, 1, 1), (1, 1), 1),
    "dilated": (1, 9, 8, 4, 4, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    "dilated rows only": (1, 9, 6, 3, 4, (3, 2), (1, 1), (0, 0, 0, 0), (3, 1), 1),
    "grouped": (1, 5, 5, 6, 9, (2, 2), (1, 1), (0, 1, 1, 0), (1, 1), 3),
    "grouped pointwise": (1, 4, 4, 8, 4, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 2),
    "windows outside the image": (1, 2, 3, 4, 4, (2, 2), (1, 1), (3, 3, 3, 2), (1, 1), 1),
    "one row": (1, 1, 20, 2, 6, (1, 5), (1, 1), (0, 2, 0, 2), (1, 1), 1),
    "one column": (1, 17, 1, 2, 6, (4, 1), (3, 1), (0, 0, 2, 0), (1, 1), 1),
    "the whole image": (1, 3, 4, 5, 11, (3, 4), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "a fifth": (1, 4, 4, 4, 4, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 1),
}


def reference(x: np.ndarray, weight: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """The sums, output by output, independent of the oracle: [N, H, W, O] int64."""
    top, left, bottom, right = attributes["padding"]
    (stride_y, stride_x), (step_y, step_x) = attributes["strides"], attributes["dilation"]
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x.astype(np.int64), pads, constant_values=attributes["input_zero"])
    outputs, kernel_h, kernel_w, channels = weight.shape
    reach_y, reach_x = step_y * (kernel_h - 1) + 1, step_x * (kernel_w - 1) + 1
    height = (padded.shape[1] - reach_y) // stride_y + 1
    width = (padded.shape[2] - reach_x) // stride_x + 1
    sums = np.zeros((len(x), height, width, outputs), np.int64)
    for y in range(height):
        for i in range(width):
            rows = slice(y * stride_y, y * stride_y + reach_y, step_y)
            columns = slice(i * stride_x, i * stride_x + reach_x, step_x)
            window = padded[:, rows, columns]
            for o in range(outputs):
                first = o // (outputs // attributes["groups"]) * channels
                seen = window[..., first : first + channels]
                sums[:, y, i, o] = (seen * weight[o].astype(np.int64)).sum(axis=(1, 2, 3))
    return sums


def make(tools: Any, rng: np.random.Generator, shape: tuple, **changes: Any) -> Any:
    """A case with random data whose results spread over all of int8."""
    n, h, w, channels, outputs, kernel, strides, padding, dilation, groups = shape
    x = rng.integers(-128, 128, (n, h, w, channels)).astype(np.int8)
    weight = rng.integers(-127, 128, (outputs, *kernel, channels // groups)).astype(np.int8)
    attributes = {
        "strides": strides, "padding": padding, "dilation": dilation, "groups": groups,
        "input_zero": int(rng.integers(-128, 128)), "shift": 0, "minimum": -128, "maximum": 127,
        "scale": 1.0, "zero_point": 0, **changes,
    }  # fmt: skip
    sums = reference(x, weight, attributes)
    bias, multiplier = tools["requantization"](rng, sums, attributes["shift"])
    return tools["case"]("fewbits.conv2d", [x, weight, bias, multiplier], [1, 2, 3], **attributes)


def test_every_shape(tools: Any, target: str) -> None:
    rng = np.random.default_rng(1)
    cases = [make(tools, rng, shape) for shape in SHAPES.values()]
    tools["assert_exact"](lower_conv2d, cases, target)


def test_limits_and_shifts(tools: Any, target: str) -> None:
    rng = np.random.default_rng(2)
    shapes = [SHAPES[name] for name in ("pointwise", "three by three", "pointwise, odd channels")]
    changes = [
        {"minimum": 0}, {"minimum": -3, "maximum": 100}, {"minimum": -128, "maximum": 5},
        {"shift": 1}, {"shift": 5, "minimum": -20}, {"shift": 8}, {"shift": 9, "maximum": 90},
    ]  # fmt: skip
    cases = [make(tools, rng, shape, **change) for shape in shapes for change in changes]
    tools["assert_exact"](lower_conv2d, cases, target)


def test_extreme_values(tools: Any, target: str) -> None:
    """All activations and weights at their ends, multipliers and biases too."""
    cases = []
    for x_value, weight_value in ((-128, -127), (-128, 127), (127, 127)):
        x = np.full((1, 3, 2, 12), x_value, np.int8)
        weight = np.full((5, 1, 1, 12), weight_value, np.int8)
        bias = np.array([2**30, -(2**30), 2**22, 0, -1], np.int32)
        multiplier = np.array([2**31 - 1, 1, 2**26, 0, 2**30], np.int32)
        cases.append(
            tools["case"](
                "fewbits.conv2d", [x, weight, bias, multiplier], [1, 2, 3],
                strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1, input_zero=0,
                shift=0, minimum=-128, maximum=127, scale=1.0, zero_point=0,
            )
        )  # fmt: skip
    tools["assert_exact"](lower_conv2d, cases, target)


@st.composite
def shapes(draw: st.DrawFn) -> tuple:
    """Any small convolution with at least one output."""
    number = st.integers
    kernel = draw(number(1, 4)), draw(number(1, 4))
    dilation = draw(number(1, 2)), draw(number(1, 2))
    padding = tuple(draw(number(0, 2)) for _ in range(4))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = draw(number(max(1, reach[0] - padding[0] - padding[2]), 8))
    width = draw(number(max(1, reach[1] - padding[1] - padding[3]), 8))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels, outputs = groups * draw(number(1, 9)), groups * draw(number(1, 11))
    strides = draw(number(1, 3)), draw(number(1, 3))
    batch = draw(number(1, 2))
    return batch, height, width, channels, outputs, kernel, strides, padding, dilation, groups


@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=st.lists(shapes(), min_size=12, max_size=12), seed=st.integers(0, 2**32))
def test_random_shapes(tools: Any, target: str, batch: list[tuple], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tools["assert_exact"](lower_conv2d, [make(tools, rng, shape) for shape in batch], target)


def test_oracle_agrees_with_a_reference_of_its_own(tools: Any) -> None:
    rng = np.random.default_rng(3)
    for shape in SHAPES.values():
        case = make(tools, rng, shape, shift=int(rng.integers(0, 3)))
        x, weight, bias, multiplier = case.values
        attributes = {name: case.call.attrs[name] for name in ("strides", "dilation", "padding")}
        attributes |= {name: int(case.call.attrs[name]) for name in ("groups", "input_zero")}
        sums = reference(x, weight, attributes) << int(case.call.attrs["shift"])
        wanted = ((sums + bias.astype(np.int64)) * multiplier.astype(np.int64)) >> 32
        np.testing.assert_array_equal(case.expected[0], np.clip(wanted, -128, 127))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs the machine's own gcc")
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4"])
def test_portable_twins_under_sanitizers(tools: Any, core: str) -> None:
    """What is laid out for a core runs on the host too, and touches nothing it should not."""
    rng = np.random.default_rng(4)
    cases = [make(tools, rng, shape, shift=s) for shape in SHAPES.values() for s in (0, 2)]
    # The host takes another number of pixels at once for "quads", so only their layout is common.
    calls = [case.lower(lower_conv2d, core) for case in cases]
    twins = [
        i for i, c in enumerate(calls) if c.function.endswith(("pairs", "bytes"))
    ]  # fmt: skip
    assert twins or core == "cortex-m3"
    probe = Probe([calls[i] for i in twins], get_target("c"), sanitize=True) if twins else None
    for position, i in enumerate(twins):
        case, distance = cases[i], calls[i].overlap[0]
        for place in (None, distance) if distance is not None else (None,):
            assert probe is not None
            got = probe.run(position, [case.values[0]], distance=place).outputs[0]
            np.testing.assert_array_equal(got, case.expected[0])


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="needs arm-none-eabi-gcc")
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4"])
def test_gnu_compiler(tools: Any, core: str) -> None:
    rng = np.random.default_rng(5)
    cases = [make(tools, rng, shape) for shape in SHAPES.values()]
    calls = [case.lower(lower_conv2d, core) for case in cases]
    probe = Probe(calls, get_target(core), compiler="arm-none-eabi-gcc")
    for i, case in enumerate(cases):
        got = probe.run(i, [case.values[0]]).outputs[0]
        np.testing.assert_array_equal(got, case.expected[0])


def test_activations_at_any_address(tools: Any, target: str) -> None:
    """Only constants and scratch memory have to be aligned."""
    if target == "c":
        pytest.skip("the host's buffers are where malloc puts them")
    rng = np.random.default_rng(6)
    names = ("pointwise", "three by three", "first layer of vision", "the whole image")
    cases = [make(tools, rng, SHAPES[name]) for name in names]
    calls = [case.lower(lower_conv2d, target) for case in cases]
    probe = Probe(calls, get_target(target))
    for i, case in enumerate(cases):
        got = probe.run(i, [case.values[0]], misalign=1).outputs[0]
        np.testing.assert_array_equal(got, case.expected[0])


def test_overlap_is_the_smallest_distance(tools: Any) -> None:
    """One byte less and a later block reads what an earlier one wrote."""
    rng = np.random.default_rng(7)
    for name in ("pointwise that expands", "three by three", "first layer of speech"):
        case = make(tools, rng, SHAPES[name])
        call = case.lower(lower_conv2d, "cortex-m4")
        distance = call.overlap[0]
        assert distance
        probe = Probe([call], get_target("cortex-m4"))
        got = probe.run(0, [case.values[0]], distance=distance - 1).outputs[0]
        assert (got != case.expected[0]).any(), name


def test_wide_sums_fall_back_with_a_note(tools: Any) -> None:
    rng = np.random.default_rng(8)
    case = make(tools, rng, (1, 2, 2, 600, 4, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1))
    case.values[1][:] = 127
    call = case.lower(lower_conv2d, "cortex-m4")
    assert call.function == "fb_conv2d_quads"
    assert "24 bits" in str(call.note)
    tools["assert_exact"](lower_conv2d, [case], "cortex-m4")


def test_a_single_output_channel_is_quick_with_smlad(tools: Any) -> None:
    rng = np.random.default_rng(10)
    case = make(tools, rng, (1, 12, 12, 16, 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1))
    call = case.lower(lower_conv2d, "cortex-m4")
    assert call.function == "fb_conv2d_pairs"
    probe = Probe([call], get_target("cortex-m4"))
    assert probe.run(0, [case.values[0]]).instructions < 4 * call.macs


def test_padding_is_not_counted_as_work(tools: Any) -> None:
    rng = np.random.default_rng(9)
    case = make(tools, rng, (1, 3, 3, 2, 5, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1))
    assert case.lower(lower_conv2d, "c").macs == (2 + 3 + 2) ** 2 * 2 * 5
