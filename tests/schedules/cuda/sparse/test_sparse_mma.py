"""Kernels of ``mma.sp``: results in the emulated GPU, sizes, machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import (
    ARCHITECTURES,
    SM_80,
    SM_89,
    SM_90A,
    Architecture,
)
from fewbits.schedules.cuda.mma import Mma
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.sparse import SparseMma
from fewbits.schedules.cuda.sparse.mma_sizes import SparseSizes
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.machine_code import report
from fewbits.targets.cuda.testing import Gpu
from fewbits.targets.cuda.toolchain import disassembler, find_nvcc

E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"

POINTS = [
    (1, 70, 272, "int8", "", SparseSizes(8, 16, 256, 1, 1, 2, 3)),
    (20, 70, 272, "int8", "rich", SparseSizes(16, 64, 256, 1, 2, 2, 2)),
    (70, 130, 400, "int8", "", SparseSizes(64, 128, 128, 2, 2, 1, 3)),
    (9, 65, 172, "int8", "", SparseSizes(16, 32, 128, 1, 2, 1, 2)),
    (5, 66, 1368, "int8", "", SparseSizes(8, 32, 1024, 1, 1, 8, 2)),
    (20, 71, 136, "float16", "rich", SparseSizes(16, 64, 256, 1, 2, 2, 2)),
    (20, 71, 100, "float16", "", SparseSizes(16, 64, 256, 1, 2, 1, 2)),
    (70, 130, 136, "bfloat16", "", SparseSizes(64, 128, 128, 2, 2, 1, 2)),
]


@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)
@pytest.mark.parametrize(("m", "n", "k", "dtype", "kind", "sizes"), POINTS, ids=str)
def test_results(
    m: int, n: int, k: int, dtype: str, kind: str, sizes: Any, gpu: Gpu, case: Callable[..., Any]
) -> None:
    case(m, n, k, dtype, kind=kind).check("sm_80", sizes)


@pytest.mark.parametrize("gpu", ["sm_89"], indirect=True)
@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_fp8_on_the_generation_that_has_it(dtype: str, gpu: Gpu, case: Callable[..., Any]) -> None:
    case(20, 71, 144, dtype).check("sm_89", SparseSizes(16, 64, 256, 1, 2, 1, 2))


@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)
@pytest.mark.parametrize(
    "which", ["nothing", "empty rows", "one column", "one output", "98 % zeros", "short"]
)
def test_extreme_matrices(
    which: str, gpu: Gpu, case: Callable[..., Any], prune: Callable[..., np.ndarray]
) -> None:
    rng = np.random.default_rng(3)
    n, k = {"one output": (1, 256), "short": (40, 4)}.get(which, (40, 256))
    weight = prune(rng, n, k, "int8")
    if which == "nothing":
        weight[:] = 0
    elif which == "empty rows":
        weight[::3] = 0
    elif which == "one column":
        weight[:, np.arange(k) != 77] = 0
    elif which == "98 % zeros":
        weight[rng.random(weight.shape) < 0.96] = 0
        assert (weight == 0).mean() > 0.97
    case(6, n, k, weight=weight).check("sm_80", SparseSizes(8, 32, 256, 1, 1, 2, 3))


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_what_is_refused(architecture: Architecture, case: Callable[..., Any]) -> None:
    template = SparseMma()
    assert template.refusal(case(1, 8, 12).problem, architecture) is None
    assert "4 bytes" in str(template.refusal(case(1, 8, 14).problem, architecture))
    usual = case(1, 8, 12).problem
    dense = Linear(12, 8, "int8", Dense("int8"), usual.epilogue)
    assert "layout" in str(template.refusal(dense, architecture))
    mixed = Linear(12, 8, "float16", usual.weight, usual.epilogue)
    assert "int8" in str(template.refusal(mixed, architecture))
    refused = template.refusal(case(1, 8, 16, E4M3).problem, architecture)
    assert (refused is None) == architecture.has_fp8_mma


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
@pytest.mark.parametrize("outputs", [1, 17, 384, 8192])
def test_space_is_what_fits(
    outputs: int, architecture: Architecture, case: Callable[..., Any]
) -> None:
    template, usual = SparseMma(), case(1, 8, 512).problem
    problem = Linear(512, outputs, "int8", usual.weight, usual.epilogue)
    choices = list(template.space(problem, architecture))
    assert choices
    assert len(choices) == len(set(choices))
    for sizes in choices:
        assert sizes.shared_bytes <= architecture.shared_memory
        assert sizes.rows == sizes.row_tiles * sizes.warps_down * 8
        assert sizes.columns == sizes.column_tiles * sizes.warps_across * 16
    for rows in (1, 16, 300, 10_000):
        assert template.rule(problem, architecture, rows) in choices


def test_the_model_expects_less_time_than_of_dense_products(case: Callable[..., Any]) -> None:
    usual = case(1, 8, 64).problem
    sparse = Linear(8192, 8192, "int8", usual.weight, usual.epilogue)
    dense = Linear(8192, 8192, "int8", Dense("int8"), usual.epilogue)
    for rows in (1, 4096):
        ours, theirs = SparseMma(), Mma()
        expected = ours.seconds(sparse, SM_80, rows, ours.rule(sparse, SM_80, rows))
        assert expected < theirs.seconds(dense, SM_80, rows, theirs.rule(dense, SM_80, rows))


def _tools_missing() -> str | None:
    try:
        find_nvcc()
    except FewbitsError as error:
        return str(error)
    return None if disassembler("nvdisasm") else "nvdisasm is not installed"


@pytest.mark.skipif(_tools_missing() is not None, reason=str(_tools_missing()))
@pytest.mark.parametrize(
    ("architecture", "dtype", "kind", "sizes"),
    [
        (SM_80, "int8", "rich", SparseSizes(128, 128, 128, 2, 2, 1, 3)),
        (SM_80, "float16", "", SparseSizes(128, 128, 128, 2, 2, 1, 3)),
        (SM_89, E4M3, "rich", SparseSizes(128, 256, 128, 2, 4, 1, 2)),
        (SM_89, "int8", "", SparseSizes(8, 16, 1024, 1, 1, 8, 2)),
        (SM_90A, "bfloat16", "", SparseSizes(128, 256, 128, 2, 4, 1, 3)),
    ],
    ids=str,
)
def test_machine_code_is_sparse_and_spills_nothing(
    architecture: Architecture, dtype: str, kind: str, sizes: Any, case: Callable[..., Any]
) -> None:
    usual = case(1, 8, 64, dtype, kind=kind).problem
    problem = Linear(4096, 4096, dtype, usual.weight, usual.epilogue)
    kernel = SparseMma().build(problem, architecture, sizes, "product")
    code = report(kernel)
    assert str(kernel.instruction).endswith("MMA.SP")
    products = sizes.column_tiles * sizes.row_tiles * 2 * sizes.depth // (128 * sizes.slices)
    assert code.count(str(kernel.instruction)) >= products
    assert code.count("LDGSTS") > 0
    assert code.stack == 0
    assert code.spill == 0
