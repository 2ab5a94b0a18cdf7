"""The template of products without tensor cores: what it takes, and that all of it compiles."""

from __future__ import annotations

import pytest
import tvm_ffi
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import ARCHITECTURES, SM_80, SM_90A, Architecture
from fewbits.schedules.cuda.epilogue import plain, scaled
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.simt import Simt
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.compile import compile_kernels
from fewbits.targets.cuda.toolchain import find_nvcc

SIMT = Simt()
FLOATS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32")


def product(dtype: str, inputs: int, outputs: int) -> Linear:
    epilogue = scaled("float16") if dtype == "int8" else plain("float32", dtype)
    return Linear(inputs, outputs, dtype, Dense(dtype), epilogue)


@pytest.mark.parametrize("dtype", ["int8", *FLOATS])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_takes_every_dense_product(dtype: str, architecture: Architecture) -> None:
    for inputs, outputs in ((1, 1), (63, 5), (4096, 4096)):
        problem = product(dtype, inputs, outputs)
        assert SIMT.refusal(problem, architecture) is None
        sizes = SIMT.rule(problem, architecture, 7)
        assert sizes in list(SIMT.space(problem, architecture))
        assert SIMT.seconds(problem, architecture, 7, sizes) > 0


def test_refuses_what_it_cannot_read() -> None:
    problem = Linear(64, 64, "float16", Dense("int8"), plain("float32", "float16"))
    assert "int8" in str(SIMT.refusal(problem, SM_80))
    problem = Linear(64, 64, "float64", Dense("float64"), plain("float32", "float32"))
    assert "float64" in str(SIMT.refusal(problem, SM_80))


def test_equal_arguments_give_equal_functions() -> None:
    problem = product("float16", 96, 33)
    sizes = SIMT.rule(problem, SM_80, 100)
    one, two = (SIMT.build(problem, SM_80, sizes, "same").function for _ in range(2))
    assert tvm_ffi.structural_equal(one, two)


def test_prefers_small_tiles_for_few_rows() -> None:
    problem = product("float32", 512, 512)
    few, many = (SIMT.rule(problem, SM_90A, rows) for rows in (1, 4096))
    assert few.rows < many.rows


def nvcc() -> bool:
    try:
        find_nvcc()
    except FewbitsError:
        return False
    return True


@pytest.mark.skipif(not nvcc(), reason="there is no nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_compiles_all_kinds(architecture: Architecture) -> None:
    problems = [product(dtype, 63, 5) for dtype in FLOATS]
    problems += [product("int8", 64, 48), product("int8", 63, 48)]
    kernels = [
        SIMT.build(problem, architecture, sizes, f"simt_{i}_{j}")
        for i, problem in enumerate(problems)
        for j, sizes in enumerate(SIMT.space(problem, architecture))
    ]
    modules = compile_kernels(kernels)
    assert all(any(module.implements_function(k.name) for module in modules) for k in kernels)
