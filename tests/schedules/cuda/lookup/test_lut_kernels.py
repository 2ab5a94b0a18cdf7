"""Kernels of binary-coded weights give the float64 product of the decoded weight."""

from __future__ import annotations

import operator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.formats.compress import compress
from fewbits.formats.compressed import CompressedTensor
from fewbits.formats.granularity import Granularity, PerChannel, PerGroup, PerTensor
from fewbits.formats.parse import parse_format
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain
from fewbits.schedules.cuda.lookup import BinaryCoded, DecodeBinary, Lut
from fewbits.schedules.cuda.lookup.sizes import LutSizes, MatrixSizes
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.testing import run_kernel, unavailable
from tvm import tirx

DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
}
#: Share of a row's norm that the error may have. Tables and their sums are float32; scales and
#: decoded weights on tensor cores have the activations' mantissa.
BOUNDS = {"lut": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}
NAME = operator.attrgetter("name")


@pytest.fixture(autouse=True)
def _gpu() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


def coded(
    bits: int, shape: tuple[int, int], granularity: Granularity, offsets: bool = False
) -> CompressedTensor:
    random = np.random.default_rng(bits)
    array = random.standard_normal(shape).astype(np.float32)
    tensor = compress(
        array, parse_format(f"bcq{bits}"), granularity=granularity, scale_storage="float16"
    )
    if not offsets:
        return tensor
    added = random.standard_normal(granularity.scale_shape(shape)).astype(np.float32)
    return CompressedTensor.from_codes(
        tensor.codes(), tensor.number_format, granularity, tensor.scales, offsets=added
    )


def check(
    template: Any,
    sizes: Any,
    bits: int,
    granularity: Granularity,
    *,
    rows: int = 1,
    shape: tuple[int, int] = (48, 256),
    activation: str = "float16",
    output: str = "float32",
    architecture: str = "sm_90a",
    epilogue: Epilogue | None = None,
    operands: tuple[np.ndarray, ...] = (),
    expected: Any = lambda product: product,
    offsets: bool = False,
    scale: float = 1.0,
) -> np.ndarray:
    tensor = coded(bits, shape, granularity, offsets)
    layout = BinaryCoded.of(tensor)
    arrays = layout.pack(tensor)
    random = np.random.default_rng(rows)
    x = (scale * random.standard_normal((rows, shape[1]))).astype(DTYPES[activation])
    problem = Linear(shape[1], shape[0], activation, layout, epilogue or plain("float32", output))
    target = ARCHITECTURES[architecture]
    assert template.refusal(problem, target) is None
    if sizes is None:
        sizes = template.rule(problem, target, rows)
    kernel = template.build(problem, target, sizes, "product")
    y = np.full((rows, shape[0]), np.nan, DTYPES[problem.epilogue.dtype])
    (result,) = run_kernel(kernel, x, *arrays, *operands, y)
    wanted = expected(x.astype(np.float64) @ tensor.decode().astype(np.float64).T)
    error = np.linalg.norm(result.astype(np.float64) - wanted, axis=1)
    allowed = BOUNDS["lut" if template.name == "lut" else activation]
    if problem.epilogue.dtype != "float32":
        allowed = max(allowed, BOUNDS[problem.epilogue.dtype])
    assert (error <= allowed * np.linalg.norm(wanted, axis=1)).all(), error
    return result


def label(value: Any) -> str:
    return getattr(value, "name", str(value))


LUT, DECODE = Lut(), DecodeBinary()


@pytest.mark.parametrize(
    ("template", "bits"),
    [(LUT, 1), (LUT, 2), (LUT, 3), (LUT, 4), (DECODE, 1), (DECODE, 2), (DECODE, 4)],
    ids=label,
)
def test_every_number_of_planes(template: Any, bits: int) -> None:
    check(template, None, bits, PerGroup(64), rows=2)


@pytest.mark.parametrize(
    "sizes",
    [
        LutSizes(1, 2, 1, 8),
        LutSizes(1, 4, 2, 16),
        LutSizes(2, 1, 1, 8),
        LutSizes(4, 1, 2, 8),
        LutSizes(1, 2, 2, 8, split=2),
        LutSizes(2, 1, 1, 16, split=4),
    ],
    ids=str,
)
def test_every_kind_of_tables(sizes: LutSizes) -> None:
    check(LUT, sizes, 2, PerGroup(96), rows=3, shape=(70, 1100))


@pytest.mark.parametrize(
    ("template", "granularity"),
    [
        (LUT, PerTensor()),
        (LUT, PerGroup(16)),
        (LUT, PerGroup(48)),
        (DECODE, PerChannel(0)),
        (DECODE, PerGroup(16)),
    ],
    ids=label,
)
def test_scales(template: Any, granularity: Granularity) -> None:
    check(template, None, 3, granularity, rows=2, shape=(33, 416), offsets=True)


@pytest.mark.parametrize(
    ("template", "sizes", "rows", "shape"),
    [
        (LUT, None, 1, (1, 1)),
        (LUT, None, 4, (1, 40)),
        (LUT, None, 5, (100, 331)),
        (DECODE, None, 1, (1, 1)),
        (DECODE, MatrixSizes(8, 2, 2), 11, (90, 333)),
        (DECODE, MatrixSizes(64, 4, 1), 70, (130, 200)),
        (DECODE, MatrixSizes(16, 1, 8), 17, (20, 1000)),
    ],
    ids=label,
)
def test_shapes_that_divide_nothing(
    template: Any, sizes: Any, rows: int, shape: tuple[int, int]
) -> None:
    check(template, sizes, 3, PerChannel(0), rows=rows, shape=shape)


@pytest.mark.parametrize(
    ("template", "activation", "output"),
    [
        (LUT, "bfloat16", "bfloat16"),
        (LUT, "float32", "float32"),
        (DECODE, "bfloat16", "bfloat16"),
        (DECODE, "float16", "float16"),
    ],
    ids=label,
)
def test_every_activation(template: Any, activation: str, output: str) -> None:
    check(template, None, 3, PerGroup(32), activation=activation, output=output)


@pytest.mark.parametrize(
    ("template", "architecture"), [(LUT, "sm_80"), (LUT, "sm_89"), (DECODE, "sm_80")], ids=label
)
def test_other_architectures(template: Any, architecture: str) -> None:
    check(template, None, 3, PerGroup(64), rows=4, architecture=architecture)


@pytest.mark.parametrize("template", [LUT, DECODE], ids=NAME)
def test_rows_of_zeros_are_zero(template: Any) -> None:
    result = check(template, None, 2, PerGroup(64), scale=0.0, offsets=True)
    np.testing.assert_array_equal(result, 0)


def test_tables_do_not_overflow() -> None:
    # Eight of them exceed float16.
    check(LUT, None, 2, PerGroup(64), scale=15_000.0)


@pytest.mark.parametrize("template", [LUT, DECODE], ids=NAME)
def test_epilogues(template: Any) -> None:
    total = tirx.Var("sum", "float32")
    bias = Operand.of("column", "float32", "bias")
    other = Operand.of("matrix", "float16", "other")
    value = tirx.max(total + bias.element, tirx.const(0.0, "float32"))
    value = tirx.Cast("float16", value + tirx.Cast("float32", other.element))
    epilogue = Epilogue(total, value, (bias, other))
    random = np.random.default_rng(5)
    b = random.standard_normal(48).astype(np.float32)
    m = random.standard_normal((3, 48)).astype(np.float16)
    check(
        template, None, 2, PerGroup(64), rows=3, epilogue=epilogue, operands=(b, m),
        expected=lambda product: np.maximum(product + b, 0) + m,
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [LutSizes(1, 2, 2, 8, split=2), LutSizes(1, 2, 2, 8)], ids=str)
def test_results_do_not_depend_on_chance(sizes: LutSizes) -> None:
    first, second = (check(LUT, sizes, 3, PerGroup(64), shape=(64, 1024)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_refusals_are_sentences() -> None:
    layout, target = BinaryCoded(3, 64), ARCHITECTURES["sm_90a"]
    y = plain("float32", "float32")
    assert "int8" in str(LUT.refusal(Linear(64, 64, "int8", layout, y), target))
    assert "float32" in str(DECODE.refusal(Linear(64, 64, "float32", layout, y), target))
    dense = Linear(64, 64, "float16", Dense("float16"), y)
    assert "dense" in str(LUT.refusal(dense, target))
    assert "dense" in str(DECODE.refusal(dense, target))
    long = Linear(1 << 28, 64, "float16", layout, y)
    assert "too long" in str(LUT.refusal(long, target))
