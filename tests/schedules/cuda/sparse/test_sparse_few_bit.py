"""Weights that are both 2:4 sparse and of few bits: stored form, results, machine code."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.compressed import CompressedTensor
from fewbits.formats.granularity import Granularity, PerChannel, PerGroup
from fewbits.formats.parse import parse_format
from fewbits.formats.sparsity import NofM
from fewbits.schedules.cuda.architecture import ARCHITECTURES, SM_80, SM_90A
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.sparse import SparseDecode, SparseFewBit
from fewbits.schedules.cuda.sparse.decode_sizes import DecodeSizes
from fewbits.targets.cuda.machine_code import report
from fewbits.targets.cuda.testing import Gpu, run_kernel
from fewbits.targets.cuda.toolchain import disassembler, find_nvcc


def stored(n: int, k: int, levels: str, granularity: Granularity) -> CompressedTensor:
    """A random tensor, two of four kept."""
    rng = np.random.default_rng(n + k)
    values = rng.standard_normal((n, k)).astype(np.float32)
    mask = (np.argsort(rng.random((n, k // 4, 4)), axis=2) < 2).reshape(n, k)
    return compress(
        values, parse_format(levels), granularity=granularity, sparsity=NofM(2, 4), mask=mask,
        method="affine" if levels.startswith("uint") else None,
    )  # fmt: skip


@pytest.mark.parametrize("levels", ["int2", "int3", "int4", "uint4", "int8", "fp4_e2m1", "nf4"])
@pytest.mark.parametrize("granularity", [PerChannel(0), PerGroup(128), PerGroup(32)], ids=str)
def test_decoding_gives_the_tensor_back(levels: str, granularity: Granularity) -> None:
    tensor = stored(70, 392, levels, granularity)
    layout = SparseFewBit.of(tensor)
    packed = layout.pack(tensor)
    for content, array in zip(packed, layout.arrays(70, 392), strict=True):
        assert content.shape == array.shape
        assert str(content.dtype) == array.dtype
    exact = tensor.decode()
    error = np.abs(layout.decoded(packed, 70, 392) - exact)
    # Table levels are rounded to float16.
    assert (error <= 2.0**-11 * np.abs(exact) + 1e-6).all()
    np.testing.assert_array_equal(layout.decoded(packed, 70, 392)[~tensor.mask()], 0)


def test_what_has_no_layout() -> None:
    with pytest.raises(FewbitsError) as caught:
        SparseFewBit.of(compress(np.ones((4, 8), np.float32), parse_format("int4")))
    assert caught.value.code == "no-layout"
    by_input = stored(8, 16, "int4", PerGroup(4, axis=0))
    assert "group" in str(SparseFewBit.refusal(by_input))
    tiny = stored(8, 64, "int4", PerGroup(16))
    assert "16" in str(SparseFewBit.refusal(tiny))


POINTS = [
    (3, 70, 512, "int4", PerGroup(128), DecodeSizes(8, 32, 1024, 1, 2, 4, 2)),
    (20, 33, 300, "nf4", PerChannel(0), DecodeSizes(16, 32, 512, 1, 1, 2, 3)),
    (64, 130, 512, "int3", PerGroup(64), DecodeSizes(64, 64, 256, 1, 4, 1, 2)),
    (9, 40, 1100, "int8", PerGroup(32), DecodeSizes(16, 64, 1024, 1, 2, 4, 2)),
]


@pytest.mark.parametrize("gpu", ["sm_80", "sm_90a"], indirect=True)
@pytest.mark.parametrize(("m", "n", "k", "levels", "granularity", "sizes"), POINTS, ids=str)
def test_results(
    m: int, n: int, k: int, levels: str, granularity: Granularity, sizes: Any, gpu: Gpu
) -> None:
    tensor = stored(n, k, levels, granularity)
    layout = SparseFewBit.of(tensor)
    packed = layout.pack(tensor)
    dtype = "bfloat16" if levels == "int8" else "float16"
    kind: Any = ml_dtypes.bfloat16 if levels == "int8" else np.float16
    x = np.random.default_rng(1).standard_normal((m, k)).astype(kind)
    problem = Linear(k, n, dtype, layout, plain("float32", "float32"))
    kernel = SparseDecode().build(problem, gpu.architecture, sizes, "product")
    (y,) = run_kernel(kernel, x, *packed, np.full((m, n), 77, np.float32))
    weight, wide = layout.decoded(packed, n, k), x.astype(np.float64)
    bound = (k + 16) * 2.0**-24 * (np.abs(wide) @ np.abs(weight).T) + 1e-6
    assert (np.abs(y - wide @ weight.T) <= bound).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_the_rule_fits(architecture: Any) -> None:
    layout = SparseFewBit.of(stored(32, 256, "int4", PerGroup(128)))
    problem = Linear(4096, 4096, "float16", layout, plain("float32", "float16"))
    template = SparseDecode()
    assert template.refusal(problem, architecture) is None
    choices = list(template.space(problem, architecture))
    for rows in (1, 16, 64, 2000):
        assert template.rule(problem, architecture, rows) in choices
    other = Linear(4096, 4096, "int8", layout, plain("int32", "int32"))
    assert "int8" in str(template.refusal(other, architecture))


def _tools_missing() -> str | None:
    try:
        find_nvcc()
    except FewbitsError as error:
        return str(error)
    return None if disassembler("nvdisasm") else "nvdisasm is not installed"


@pytest.mark.skipif(_tools_missing() is not None, reason=str(_tools_missing()))
@pytest.mark.parametrize("architecture", [SM_80, SM_90A], ids=lambda a: a.name)
@pytest.mark.parametrize("rows", [1, 64])
def test_machine_code_is_sparse_and_spills_nothing(architecture: Any, rows: int) -> None:
    layout = SparseFewBit.of(stored(32, 256, "int4", PerGroup(128)))
    problem = Linear(4096, 4096, "float16", layout, plain("float32", "float16"))
    template = SparseDecode()
    sizes = template.rule(problem, architecture, rows)
    code = report(template.build(problem, architecture, sizes, "product"))
    assert code.count("HMMA.SP") >= 4 * sizes.row_tiles * sizes.column_tiles * sizes.stages
    assert code.stack == 0
    assert code.spill == 0
