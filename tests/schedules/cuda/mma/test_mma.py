"""The tensor-core template: what it takes, which sizes it offers, and its machine code."""

from __future__ import annotations

import pytest
import tvm_ffi
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import (
    ARCHITECTURES,
    SM_80,
    SM_89,
    SM_90A,
    Architecture,
)
from fewbits.schedules.cuda.epilogue import plain, scaled
from fewbits.schedules.cuda.mma import Mma, Sizes
from fewbits.schedules.cuda.mma.tile import swizzled
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.compile import compile_kernels
from fewbits.targets.cuda.machine_code import report_module
from fewbits.targets.cuda.toolchain import disassembler, find_nvcc

MMA = Mma()
FP8 = ("float8_e4m3fn", "float8_e5m2")


def product(dtype: str, inputs: int, outputs: int) -> Linear:
    epilogue = scaled("float16") if dtype == "int8" else plain("float32", "float16")
    return Linear(inputs, outputs, dtype, Dense(dtype), epilogue)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16"])
def test_takes_rows_of_whole_chunks(dtype: str, architecture: Architecture) -> None:
    chunk = 16 if dtype == "int8" else 8
    assert MMA.refusal(product(dtype, 3 * chunk, 5), architecture) is None
    assert "16 bytes" in str(MMA.refusal(product(dtype, 3 * chunk + 4, 64), architecture))


@pytest.mark.parametrize("dtype", FP8)
def test_fp8_is_native_on_one_generation(dtype: str) -> None:
    assert MMA.refusal(product(dtype, 64, 64), SM_89) is None
    assert "FP8" in str(MMA.refusal(product(dtype, 64, 64), SM_80))
    assert "FP8" in str(MMA.refusal(product(dtype, 64, 64), SM_90A))


def test_refuses_float32_and_other_layouts() -> None:
    assert "float32" in str(MMA.refusal(product("float32", 64, 64), SM_80))
    mixed = Linear(64, 64, "float16", Dense("int8"), plain("float32", "float16"))
    assert "int8" in str(MMA.refusal(mixed, SM_80))


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
@pytest.mark.parametrize("outputs", [1, 17, 384, 8192])
def test_space_is_what_fits(outputs: int, architecture: Architecture) -> None:
    problem = product("int8", 512, outputs)
    choices = list(MMA.space(problem, architecture))
    assert len(choices) == len(set(choices))
    assert choices
    for sizes in choices:
        assert sizes.shared_bytes <= architecture.shared_memory
        assert sizes.rows == sizes.row_tiles * sizes.warps_down * 16
        assert sizes.columns == sizes.column_tiles * sizes.warps_across * 8
    for rows in (1, 16, 300, 10_000):
        assert MMA.rule(problem, architecture, rows) in choices


def test_rule_uses_slices_for_few_rows_and_wide_tiles_for_many() -> None:
    problem = product("int8", 4096, 4096)
    few, many = (MMA.rule(problem, SM_80, rows) for rows in (1, 4096))
    assert few.rows == 16
    assert few.slices > 1
    assert many.rows * many.columns >= 64 * 128


def test_equal_arguments_give_equal_functions() -> None:
    problem = product("float16", 96, 33)
    sizes = MMA.rule(problem, SM_80, 100)
    one, two = (MMA.build(problem, SM_80, sizes, "same").function for _ in range(2))
    assert tvm_ffi.structural_equal(one, two)


@pytest.mark.parametrize("depth", [32, 64, 128, 256])
def test_swizzle_is_a_permutation_without_bank_conflicts(depth: int) -> None:
    chunks = depth // 16
    places = {swizzled(row, chunk, depth) for row in range(64) for chunk in range(chunks)}
    assert places == set(range(0, 64 * depth, 16))
    for first in range(0, 64, 8):
        for chunk in range(chunks):
            banks = {swizzled(first + i, chunk, depth) % 128 // 16 for i in range(8)}
            assert len(banks) == 8


def tools() -> bool:
    try:
        find_nvcc()
    except FewbitsError:
        return False
    return disassembler("cuobjdump") is not None and disassembler("nvdisasm") is not None


SHAPES = (
    Sizes(16, 32, 256, 1, 1, 4, 4),
    Sizes(128, 128, 64, 2, 2, 1, 3),
)


@pytest.mark.skipif(not tools(), reason="there is no nvcc, or no disassembler")
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_machine_code_is_tensor_cores_without_spills(architecture: Architecture) -> None:
    kernels = [
        MMA.build(product(dtype, 512, 100), architecture, sizes, f"mma_{dtype}_{place}")
        for dtype in ("int8", "float16", "bfloat16", *FP8)
        for place, sizes in enumerate(SHAPES)
        if MMA.refusal(product(dtype, 512, 100), architecture) is None
        and sizes.shared_bytes <= architecture.shared_memory
    ]
    (module,) = compile_kernels(kernels)
    codes = report_module(module, architecture)
    for kernel in kernels:
        code = codes[f"{kernel.name}_kernel"]
        assert code.count(str(kernel.instruction)) > 0, kernel.name
        assert code.count("LDSM") > 0
        assert code.count("LDGSTS") > 0
        assert code.spill == 0, kernel.name
        assert code.stack == 0, kernel.name
