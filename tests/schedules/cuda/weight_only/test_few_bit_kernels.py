"""Kernels give the float64 product of the decoded weight, in the emulated GPU or a real one."""

from __future__ import annotations

import operator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.formats.compress import compress
from fewbits.formats.granularity import Granularity, PerChannel, PerGroup, PerTensor
from fewbits.formats.parse import parse_format
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.schedules.cuda.weight_only import DecodeMma, DecodeWgmma, FewBit, Matvec, Skinny
from fewbits.schedules.cuda.weight_only.sizes import Sizes
from fewbits.schedules.cuda.weight_only.stream import StreamSizes
from fewbits.schedules.cuda.weight_only.warpgroup import WarpgroupSizes
from fewbits.targets.cuda.testing import run_kernel, unavailable
from tvm import tirx

#: Share of a row's norm that the error may have.
BOUNDS = {"float16": 2e-3, "bfloat16": 6e-3, "float32": 6e-3}
DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
}


@pytest.fixture(autouse=True)
def _gpu() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


def check(
    template: Any,
    sizes: Any,
    name: str,
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
    bound: float | None = None,
    **how: Any,
) -> np.ndarray:
    random = np.random.default_rng(len(name) + rows)
    array = random.standard_normal(shape).astype(np.float32)
    number_format = parse_format(name)
    if not number_format.signed and how.get("method") != "affine":
        array = np.abs(array)
    tensor = compress(array, number_format, granularity=granularity, **how)
    layout = FewBit.of(tensor)
    arrays = layout.pack(tensor)
    x = random.standard_normal((rows, shape[1])).astype(DTYPES[activation])
    problem = Linear(shape[1], shape[0], activation, layout, epilogue or plain("float32", output))
    target = ARCHITECTURES[architecture]
    assert template.refusal(problem, target) is None
    if sizes is None:
        sizes = template.rule(problem, target, rows)
    kernel = template.build(problem, target, sizes, "product")
    y = np.full((rows, shape[0]), np.nan, DTYPES[problem.epilogue.dtype])
    (result,) = run_kernel(kernel, x, *arrays, *operands, y)
    wanted = expected(x.astype(np.float64) @ layout.decoded(arrays, *shape).T)
    error = np.linalg.norm(result.astype(np.float64) - wanted, axis=1)
    allowed = BOUNDS[activation] if bound is None else bound
    assert (error <= allowed * np.linalg.norm(wanted, axis=1)).all(), error
    return result


NAME = operator.attrgetter("name")


def label(value: Any) -> str:
    return getattr(value, "name", str(value))


ONE = StreamSizes(1, 2, 1, 2)


@pytest.mark.parametrize(
    "name",
    ["int2", "int3", "int4", "int5", "int6", "int7", "int8", "uint4", "fp8_e4m3fn", "fp8_e5m2",
     "fp6_e3m2", "fp4_e2m1", "nf4", "flint4", "pot6", "quantile2", "quantile3", "dynamic8"],
)  # fmt: skip
def test_matvec_of_every_kind(name: str) -> None:
    check(Matvec(), ONE, name, PerGroup(64))


@pytest.mark.parametrize(
    ("activation", "output"),
    [("bfloat16", "bfloat16"), ("float32", "float32"), ("float16", "float16")],
)
@pytest.mark.parametrize("name", ["int8", "nf4"])
def test_matvec_of_every_activation(name: str, activation: str, output: str) -> None:
    check(Matvec(), ONE, name, PerGroup(32), activation=activation, output=output)


def test_float32_keeps_its_mantissa() -> None:
    # Integers are exact in bfloat16, so only float32's own rounding is left.
    check(
        Matvec(), StreamSizes(4, 2, 1, 2), "int4", PerChannel(), rows=4, activation="float32",
        bound=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("template", [Matvec(), Skinny(), DecodeMma(), DecodeWgmma()], ids=NAME)
@pytest.mark.parametrize(("bits", "activation"), [(4, "float16"), (8, "bfloat16")])
def test_zero_points(template: Any, bits: int, activation: str) -> None:
    check(
        template, None, f"uint{bits}", PerGroup(64), rows=5, activation=activation,
        method="affine", scale_storage="float16",
    )  # fmt: skip


@pytest.mark.parametrize("granularity", [PerTensor(), PerGroup(16), PerGroup(192)])
@pytest.mark.parametrize("template", [Matvec(), Skinny(), DecodeWgmma()], ids=NAME)
def test_scales(template: Any, granularity: Granularity) -> None:
    check(template, None, "int5", granularity, rows=3, shape=(33, 416))


@pytest.mark.parametrize(
    ("template", "sizes", "rows", "shape"),
    [
        (Matvec(), None, 1, (1, 1)),
        (Matvec(), StreamSizes(2, 4, 2, 1), 5, (100, 331)),
        (Matvec(), StreamSizes(16, 2, 1, 2), 17, (17, 72)),
        (Skinny(), Sizes(8, 2, 2, 2, 3), 11, (90, 333)),
        (Skinny(), Sizes(32, 1, 4, 1, 3), 33, (40, 264)),
        (DecodeMma(), Sizes(64, 4, 1, 2, 4), 70, (130, 200)),
        (DecodeWgmma(), WarpgroupSizes(32, 3), 33, (130, 200)),
        (DecodeWgmma(), WarpgroupSizes(256, 4), 300, (140, 328)),
        (DecodeWgmma(), WarpgroupSizes(64, 6), 1, (7, 8)),
    ],
    ids=label,
)
def test_shapes_that_divide_nothing(
    template: Any, sizes: Any, rows: int, shape: tuple[int, int]
) -> None:
    check(template, sizes, "int4", PerChannel(), rows=rows, shape=shape)


@pytest.mark.parametrize(
    ("template", "architecture"),
    [(Matvec(), "sm_80"), (Skinny(), "sm_89"), (DecodeMma(), "sm_80")],
    ids=label,
)
def test_other_architectures(template: Any, architecture: str) -> None:
    check(template, None, "nf4", PerGroup(64), rows=9, architecture=architecture)


@pytest.mark.parametrize("name", ["int7", "fp6_e2m3", "dynamic8"])
@pytest.mark.parametrize("template", [DecodeMma(), DecodeWgmma()], ids=NAME)
def test_many_rows(template: Any, name: str) -> None:
    check(template, None, name, PerGroup(32), rows=40, activation="bfloat16")


@pytest.mark.parametrize("template", [Matvec(), Skinny(), DecodeWgmma()], ids=NAME)
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
        template, None, "int4", PerGroup(64), rows=3, epilogue=epilogue, operands=(b, m),
        expected=lambda product: np.maximum(product + b, 0) + m,
    )  # fmt: skip


def test_results_do_not_depend_on_chance() -> None:
    results = [check(Matvec(), None, "int4", PerGroup(64), rows=2) for _ in range(2)]
    np.testing.assert_array_equal(*results)


def test_refusals_are_sentences() -> None:
    layout, target = FewBit("int4"), ARCHITECTURES["sm_90a"]
    y = plain("float32", "float32")
    assert "int8" in str(Matvec().refusal(Linear(64, 64, "int8", layout, y), target))
    assert "float32" in str(Skinny().refusal(Linear(64, 64, "float32", layout, y), target))
    dense = Linear(64, 64, "float16", Dense("float16"), y)
    assert "dense" in str(Skinny().refusal(dense, target))
    wide = Linear(1 << 20, 64, "float16", layout, y)
    assert "shared memory" in str(Matvec().refusal(wide, target))
    assert Skinny().refusal(wide, target) is None
    small = Linear(64, 64, "float16", layout, y)
    assert "wgmma" in str(DecodeWgmma().refusal(small, ARCHITECTURES["sm_80"]))
    odd = Linear(63, 64, "float16", layout, y)
    assert "16 bytes" in str(DecodeWgmma().refusal(odd, target))
    huge = Linear(1 << 18, 1 << 18, "float16", layout, y)
    assert "GiB" in str(Skinny().refusal(huge, target))
