"""The machine code is what was meant: warpgroups' products, the copy engine, nothing spilled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.architecture import SM_90A
from fewbits.schedules.cuda.hopper import Wgmma
from fewbits.schedules.cuda.hopper.sizes import Sizes
from fewbits.targets.cuda.machine_code import report
from fewbits.targets.cuda.toolchain import disassembler, find_nvcc, run_tool


def _tools_missing() -> str | None:
    try:
        find_nvcc()
    except FewbitsError as error:
        return str(error)
    return None if disassembler("nvdisasm") else "nvdisasm is not installed"


pytestmark = pytest.mark.skipif(_tools_missing() is not None, reason=str(_tools_missing()))

E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"

POINTS = [
    ("int8", "int8", "scaled", "float16", Sizes(128, 256, 4)),
    ("int8", "int8", "scaled", "float16", Sizes(256, 128, 4, cluster_rows=2)),
    ("int8", "int8", "rich", "float16", Sizes(128, 192, 3, cluster_columns=2)),
    ("int8", "int8", "requantized", "int8", Sizes(64, 256, 4, "pingpong")),
    ("int8", "int8", "scaled", "float32", Sizes(64, 16, 7, split=4, swap=True)),
    (E4M3, E5M2, "plain", "bfloat16", Sizes(128, 192, 4)),
    (E4M3, E4M3, "plain", "float32", Sizes(128, 256, 4, promote=False)),
    ("float16", "float16", "rich", "float16", Sizes(64, 192, 5, "pingpong")),
    ("bfloat16", "bfloat16", "plain", "bfloat16", Sizes(128, 128, 5, "pingpong", 2)),
]


@pytest.mark.parametrize(("x", "weight", "kind", "dtype", "sizes"), POINTS, ids=str)
def test_products_are_not_serialized_and_nothing_is_spilled(
    x: str,
    weight: str,
    kind: str,
    dtype: str,
    sizes: Sizes,
    case: Callable[..., Any],
    tmp_path: Path,
) -> None:
    problem = case(2, 4096, 4096, x, weight, kind, dtype).problem
    kernel = Wgmma().build(problem, SM_90A, sizes, "product")
    code = report(kernel)
    assert code.count(str(kernel.instruction)) >= 4
    assert code.count("UTMALDG") >= 2
    assert code.stack == 0
    assert code.spill == 0
    (tmp_path / "kernel.ptx").write_text(code.ptx)
    words = ["-arch=sm_90a", "-v", "-o", "kernel.cubin", "kernel.ptx"]
    said = run_tool([find_nvcc().part("ptxas"), *words], tmp_path)
    # C7508: setmaxnreg ignored; C7510: products serialized; C7519: a fence had to be added.
    assert "(C75" not in said
