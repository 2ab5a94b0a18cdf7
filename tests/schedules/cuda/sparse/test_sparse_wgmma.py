"""Kernels of ``wgmma.sp``: results in the emulated GPU, sizes, machine code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import SM_80, SM_90A
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.sparse import SparseWgmma
from fewbits.schedules.cuda.sparse.wgmma_plan import SparseSizes, flaw
from fewbits.targets.cuda.machine_code import report
from fewbits.targets.cuda.testing import Gpu
from fewbits.targets.cuda.toolchain import disassembler, find_nvcc, run_tool

E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"

POINTS = [
    (5, 70, 272, "int8", "", SparseSizes(64, 8, 3)),
    (20, 200, 272, "int8", "rich", SparseSizes(128, 32, 3, cluster_rows=2)),
    (20, 200, 512, "int8", "", SparseSizes(128, 32, 3, split=2)),
    (150, 201, 272, "int8", "rich", SparseSizes(64, 64, 3, "pingpong")),
    (300, 200, 136, "float16", "", SparseSizes(128, 64, 3, "pingpong")),
    (20, 71, 136, "float16", "rich", SparseSizes(256, 16, 2)),
    (70, 130, 136, "bfloat16", "", SparseSizes(256, 64, 3)),
    (20, 71, 144, E4M3, "", SparseSizes(128, 64, 2)),
    (20, 71, 144, E5M2, "", SparseSizes(128, 24, 2, promote=False)),
]


@pytest.mark.parametrize(("m", "n", "k", "dtype", "kind", "sizes"), POINTS, ids=str)
def test_results(
    m: int, n: int, k: int, dtype: str, kind: str, sizes: Any, gpu: Gpu, case: Callable[..., Any]
) -> None:
    case(m, n, k, dtype, kind=kind).check("sm_90a", sizes)


@pytest.mark.parametrize("which", ["nothing", "one output", "98 % zeros", "short"])
def test_extreme_matrices(
    which: str, gpu: Gpu, case: Callable[..., Any], prune: Callable[..., np.ndarray]
) -> None:
    rng = np.random.default_rng(3)
    n, k = {"one output": (1, 256), "short": (40, 16)}.get(which, (40, 256))
    weight = prune(rng, n, k, "int8")
    if which == "nothing":
        weight[:] = 0
    elif which == "98 % zeros":
        weight[rng.random(weight.shape) < 0.96] = 0
    case(6, n, k, weight=weight).check("sm_90a", SparseSizes(64, 16, 2))


def test_what_is_refused(case: Callable[..., Any]) -> None:
    template, problem = SparseWgmma(), case(1, 8, 32).problem
    assert template.refusal(problem, SM_90A) is None
    assert "wgmma" in str(template.refusal(problem, SM_80))
    assert "16 bytes" in str(template.refusal(case(1, 8, 36).problem, SM_90A))
    assert flaw(problem, SM_90A, SparseSizes(128, 64, 3, cluster_columns=2)) is not None
    assert flaw(problem, SM_90A, SparseSizes(128, 64, 3, swap=False)) is not None
    with pytest.raises(ValueError, match="shared memory"):
        template.build(problem, SM_90A, SparseSizes(256, 128, 12), "product")


@pytest.mark.parametrize("dtype", ["int8", "float16", E4M3])
def test_every_size_fits_and_the_rule_is_one_of_them(dtype: str, case: Callable[..., Any]) -> None:
    template, usual = SparseWgmma(), case(1, 8, 64, dtype).problem
    problem = Linear(4096, 1000, dtype, usual.weight, usual.epilogue)
    choices = set(template.space(problem, SM_90A))
    for rows in (1, 17, 300, 4096):
        sizes = template.rule(problem, SM_90A, rows)
        assert sizes in choices
        assert template.seconds(problem, SM_90A, rows, sizes) > 0


def _tools_missing() -> str | None:
    try:
        find_nvcc()
    except FewbitsError as error:
        return str(error)
    return None if disassembler("nvdisasm") else "nvdisasm is not installed"


@pytest.mark.skipif(_tools_missing() is not None, reason=str(_tools_missing()))
@pytest.mark.parametrize(
    ("dtype", "kind", "sizes"),
    [
        ("int8", "", SparseSizes(128, 256, 5, cluster_rows=2)),
        ("int8", "rich", SparseSizes(64, 192, 5, "pingpong")),
        ("float16", "", SparseSizes(64, 256, 4, "pingpong")),
        (E4M3, "", SparseSizes(128, 192, 4)),
        ("bfloat16", "", SparseSizes(64, 16, 8, split=4)),
    ],
    ids=str,
)
def test_machine_code_is_sparse_and_not_serialized(
    dtype: str, kind: str, sizes: Any, case: Callable[..., Any], tmp_path: Path
) -> None:
    usual = case(1, 8, 64, dtype, kind=kind).problem
    problem = Linear(4096, 4096, dtype, usual.weight, usual.epilogue)
    kernel = SparseWgmma().build(problem, SM_90A, sizes, "product")
    code = report(kernel)
    assert str(kernel.instruction).endswith("GMMA.SP")
    assert code.count(str(kernel.instruction)) >= 2
    assert code.count("UBLKCP") >= 1
    assert code.count("UTMALDG") >= 1
    assert code.stack == 0
    assert code.spill == 0
    (tmp_path / "kernel.ptx").write_text(code.ptx)
    words = ["-arch=sm_90a", "-v", "-o", "kernel.cubin", "kernel.ptx"]
    remarks = run_tool([find_nvcc().part("ptxas"), *words], tmp_path)
    assert not re.findall(r"\((C75\d\d)\)", remarks)
