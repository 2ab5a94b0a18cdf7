"""Convolutions on the emulated GPU: exact for int8, against torch's float64 for halves."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.convolution import (
    Convolution,
    ImplicitGemm,
    Windows,
    WindowSizes,
    filling,
)
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain
from fewbits.schedules.cuda.mma import Sizes
from fewbits.targets.cuda import testing
from tvm import tirx

RNG = np.random.default_rng(11)
TYPES: dict[str, Any] = {
    "int8": np.int8,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
#: Tiles that the images here fill several times and not wholly.
SMALL = Sizes(32, 64, 64, 1, 2, 1, 3)
WIDE = Sizes(64, 64, 128, 2, 2, 1, 2)


def case(
    channels: tuple[int, int] = (16, 24),
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    dtype: str = "int8",
    pad: int = -7,
    size: tuple[int | None, int | None] = (9, 7),
    epilogue: Epilogue | None = None,
) -> Convolution:
    if epilogue is None:
        accumulator = "int32" if dtype == "int8" else "float32"
        epilogue = plain(accumulator, accumulator)
    return Convolution(
        *channels, kernel, strides, padding, dilation, groups, size, dtype,
        pad if dtype == "int8" else 0, epilogue,
    )  # fmt: skip


def numbers(problem: Convolution, batch: int, size: tuple[int, int]) -> tuple[Any, Any]:
    """x and the weight [O, kh, kw, I / groups]."""
    shapes = (
        (batch, *size, problem.inputs),
        (problem.outputs, *problem.kernel, problem.inputs // problem.groups),
    )
    if problem.activation == "int8":
        x, w = (RNG.integers(-128, 128, shape).astype(np.int8) for shape in shapes)
        return x, np.maximum(w, -127)
    x, w = (RNG.standard_normal(shape).astype(TYPES[problem.activation]) for shape in shapes)
    return x, w


def reference(problem: Convolution, x: Any, w: Any) -> np.ndarray:
    """The sums as float64 [M, O]."""
    left = torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2)
    right = torch.from_numpy(w.astype(np.float64)).permute(0, 3, 1, 2)
    top, lead, bottom, trail = problem.padding
    left = torch.nn.functional.pad(left, (lead, trail, top, bottom), value=problem.pad)
    sums = torch.nn.functional.conv2d(
        left, right, stride=problem.strides, dilation=problem.dilation, groups=problem.groups
    )
    return sums.permute(0, 2, 3, 1).reshape(-1, problem.outputs).numpy()


def check(
    template: Any, problem: Convolution, sizes: Any, architecture: str = "sm_80", batch: int = 2
) -> None:
    found = ARCHITECTURES[architecture]
    assert template.refusal(problem, found) is None
    x, w = numbers(problem, batch, (9, 7))
    expected = reference(problem, x, w)
    kernel = template.build(problem, found, sizes, "convolution")
    stored = template.pack(problem, w)
    assert (stored.shape, str(stored.dtype)) == template.weight(problem)
    start = np.full(expected.shape, 99, problem.epilogue.dtype)
    (y,) = testing.run_kernel(kernel, x, stored, filling(problem), start)
    if problem.activation == "int8":
        np.testing.assert_array_equal(y, expected)
    else:
        bound = problem.terms * 2.0**-22 * reference(problem, abs(x), abs(w)) + 1e-30
        assert (np.abs(y - expected) <= bound).all()


@pytest.mark.parametrize(
    "problem",
    [
        case(),
        case(channels=(4, 8), pad=3),
        case(channels=(8, 9), strides=(2, 1), padding=(0, 1, 1, 2)),
        case(channels=(48, 33), dilation=(2, 3), padding=(2, 3, 1, 0)),
        case(kernel=(1, 1), padding=(0, 0, 0, 0), strides=(2, 2)),
        case(kernel=(5, 1), padding=(3, 0, 3, 0), size=(None, None)),
        case(channels=(20, 10), kernel=(7, 5), strides=(3, 2), padding=(6, 4, 6, 4)),
    ],
    ids=lambda problem: str(problem.kernel),
)
def test_integers_are_exact(problem: Convolution) -> None:
    check(ImplicitGemm(), problem, SMALL)


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_groups_of_many_channels(dtype: str) -> None:
    narrow = Sizes(16, 16, 128, 1, 1, 2, 3)
    check(ImplicitGemm(), case((24, 96), groups=3, dtype=dtype), narrow)


@pytest.mark.parametrize("seed", range(8))
def test_any_convolution_in_any_sizes(seed: int) -> None:
    random = np.random.default_rng(seed)

    def pair(low: int, high: int) -> tuple[int, int]:
        return int(random.integers(low, high)), int(random.integers(low, high))

    top, bottom = pair(0, 4)
    left, right = pair(0, 4)
    groups = int(random.choice([1, 1, 2, 3]))
    channels = 4 * int(random.integers(1, 9)), int(random.integers(1, 5)) * 16
    problem = case(
        (channels[0] * groups, channels[1] * groups), pair(1, 5), pair(1, 4),
        (top, left, bottom, right), pair(1, 3), groups, pad=int(random.integers(-128, 128)),
        size=(None, None) if seed % 2 else (9, 7),
    )  # fmt: skip
    architecture = str(random.choice(list(ARCHITECTURES)))
    for template in (ImplicitGemm(), Windows()):
        space: list[Any] = list(template.space(problem, ARCHITECTURES[architecture]))
        sizes = space[int(random.integers(len(space)))]
        check(template, problem, sizes, architecture, batch=int(random.integers(1, 4)))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16"])
def test_larger_tiles_of_every_type(architecture: str, dtype: str) -> None:
    channels = (12, 70) if dtype == "int8" else (6, 70)
    check(ImplicitGemm(), case(channels, padding=(2, 0, 0, 1), dtype=dtype), WIDE, architecture)


@pytest.mark.parametrize("sizes", [WindowSizes(4, 1), WindowSizes(4, 4, 32)], ids=str)
@pytest.mark.parametrize(
    "problem",
    [
        case((8, 8), groups=8),
        case((12, 12), groups=12, strides=(2, 2), padding=(0, 1, 1, 0), dtype="float16"),
        case((4, 4), groups=4, dilation=(1, 2), dtype="bfloat16", size=(None, None)),
        case((8, 16), groups=2),
        case((8, 16), groups=2, dtype="float16"),
        case((9, 12), groups=3, kernel=(2, 3)),
        case((9, 12), groups=3, dtype="bfloat16"),
        case((3, 12), groups=3),
    ],
    ids=lambda problem: f"{problem.inputs}-{problem.outputs}-{problem.activation}",
)
def test_groups(problem: Convolution, sizes: WindowSizes) -> None:
    check(Windows(), problem, sizes)


@pytest.mark.parametrize(
    "problem",
    [
        case((5, 5), groups=5),
        case((5, 5), groups=5, dtype="float16"),
        case((3, 5)),
        case((6, 6), groups=6, dtype="bfloat16"),
    ],
    ids=lambda problem: f"{problem.inputs}-{problem.outputs}-{problem.activation}",
)
def test_odd_channels(problem: Convolution) -> None:
    wide = problem.activation == "bfloat16"
    check(Windows(), problem, WindowSizes(2 if wide else 1, 2))


def requantizing() -> Epilogue:
    """The integer dialect's end of a product, and a residual added in integers."""
    total = tirx.Var("sum", "int32")
    bias, multiplier = (Operand.of("column", "int32", name) for name in ("bias", "multiplier"))
    other = Operand.of("matrix", "int8", "other")
    scaled = tirx.Cast("int64", total * 4 + bias.element)
    wide = (scaled * tirx.Cast("int64", multiplier.element)) >> tirx.const(32, "int64")
    wide = tirx.Cast("int32", wide) + tirx.Cast("int32", other.element)
    value = tirx.Cast("int8", tirx.max(tirx.min(wide, 127), -100))
    return Epilogue(total, value, (bias, multiplier, other))


@pytest.mark.parametrize(
    ("template", "groups", "sizes"),
    [(ImplicitGemm(), 1, SMALL), (Windows(), 16, WindowSizes(4, 2))],
    ids=["patches", "windows"],
)
def test_sums_are_requantized_in_64_bits(template: Any, groups: int, sizes: Any) -> None:
    problem = case((16, 16), groups=groups, epilogue=requantizing())
    x, w = numbers(problem, 1, (9, 7))
    sums = reference(problem, x, w).astype(np.int64)
    bias = RNG.integers(-1000, 1000, 16).astype(np.int32)
    multiplier = RNG.integers(2**22, 2**26, 16).astype(np.int32)
    other = RNG.integers(-128, 128, sums.shape).astype(np.int8)
    expected = np.clip((((sums * 4 + bias) * multiplier) >> 32) + other, -100, 127)
    kernel = template.build(problem, ARCHITECTURES["sm_90a"], sizes, "convolution")
    stored = template.pack(problem, w)
    arrays = (x, stored, filling(problem), bias, multiplier, other)
    (y,) = testing.run_kernel(kernel, *arrays, np.zeros(sums.shape, np.int8))
    np.testing.assert_array_equal(y, expected)
    assert len(np.unique(y)) > 50
