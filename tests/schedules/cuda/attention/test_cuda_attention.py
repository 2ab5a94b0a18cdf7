"""Attention's kernel against float64, on a GPU or the emulated one."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES, SM_80, Architecture
from fewbits.schedules.cuda.attention import Attention, attention_kernel, refusal
from fewbits.schedules.cuda.attention.problem import Mask
from fewbits.schedules.cuda.attention.sizes import Sizes, rule
from fewbits.targets.cuda import machine_code, testing

_TYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

#: batch, rows, columns: less than a tile, ragged tiles, several pieces of keys.
_EXTENTS = [(1, 1, 1), (2, 37, 70), (1, 65, 130)]


def _expected(problem: Attention, arrays: list[np.ndarray], mask: np.ndarray | None) -> np.ndarray:
    q, k, v = (
        a.astype(np.float64) if first else a.astype(np.float64).transpose(0, 2, 1, 3)
        for a, first in zip(arrays, problem.heads_first, strict=False)
    )
    scores = q @ k.transpose(0, 1, 3, 2) * problem.scale
    if mask is not None:
        scores = scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    result = weights @ v
    return result if problem.heads_first[3] else result.transpose(0, 2, 1, 3)


def _run(
    problem: Attention,
    architecture: Architecture,
    extents: tuple[int, int, int],
    sizes: Sizes | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel gives, and what it should."""
    generator = np.random.default_rng(sum(extents))
    batch, rows, columns = extents
    dtype = _TYPES[problem.dtype]
    shapes = [problem.shape(i, batch, t) for i, t in enumerate((rows, columns, columns, rows))]
    arrays = [generator.standard_normal(shape).astype(dtype) for shape in shapes[:3]]
    mask = None
    if problem.mask is not None:
        over = problem.mask
        shape = (
            batch if over.batch else 1, problem.heads if over.heads else 1,
            rows if over.rows else 1, columns,
        )  # fmt: skip
        mask = np.where(generator.random(shape) < 0.4, -1e9, 0.0).astype(np.float32)
    sizes = sizes or rule(problem, architecture.shared_memory)
    kernel = attention_kernel(problem, architecture, sizes, "attention")
    poison = np.full(shapes[3], np.nan, dtype)
    given = [*arrays, *([] if mask is None else [mask]), poison]
    (result,) = testing.run_kernel(kernel, *given)
    return result.astype(np.float64), _expected(problem, arrays, mask)


def _check(result: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    bound = 2e-3 if dtype == "float16" else 1.6e-2
    assert np.isfinite(result).all()
    assert np.linalg.norm(result - expected) <= bound * np.linalg.norm(expected)


@pytest.mark.parametrize("gpu", list(ARCHITECTURES), indirect=True)
@pytest.mark.parametrize("extents", _EXTENTS)
def test_rows_and_columns_of_any_number(gpu: testing.Gpu, extents: tuple[int, int, int]) -> None:
    problem = Attention(2, 32, 32, 32**-0.5, "float16")
    _check(*_run(problem, gpu.architecture, extents), "float16")


@pytest.mark.parametrize("size", [8, 24, 64, 256])
def test_heads_of_any_whole_number_of_copies(gpu: testing.Gpu, size: int) -> None:
    problem = Attention(1, size, size, size**-0.5, "float16")
    _check(*_run(problem, gpu.architecture, (1, 20, 70)), "float16")


def test_values_of_another_size(gpu: testing.Gpu) -> None:
    problem = Attention(2, 16, 40, 0.25, "float16")
    _check(*_run(problem, gpu.architecture, (1, 20, 33)), "float16")


@pytest.mark.parametrize(
    "mask", [Mask(True, False, False), Mask(False, True, True), Mask(False, False, False)]
)
def test_masks_along_any_axes(gpu: testing.Gpu, mask: Mask) -> None:
    problem = Attention(2, 16, 16, 0.25, "float16", mask)
    _check(*_run(problem, gpu.architecture, (2, 18, 50)), "float16")


@pytest.mark.parametrize("first", [(True,) * 4, (True, False, True, False)])
def test_heads_before_or_after_tokens(gpu: testing.Gpu, first: tuple[bool, ...]) -> None:
    problem = Attention(3, 16, 16, 0.25, "float16", None, first)  # type: ignore[arg-type]
    _check(*_run(problem, gpu.architecture, (2, 18, 20)), "float16")


def test_bfloat16_and_one_stage(gpu: testing.Gpu) -> None:
    problem = Attention(1, 32, 32, 0.2, "bfloat16")
    pair = _run(problem, gpu.architecture, (1, 17, 100), Sizes(warps=1, columns=16, stages=1))
    _check(*pair, "bfloat16")


def test_a_row_of_which_everything_is_masked_is_finite(gpu: testing.Gpu) -> None:
    problem = Attention(1, 16, 16, 1.0, "float16", Mask(False, False, False))
    kernel = attention_kernel(problem, gpu.architecture, Sizes(), "attention")
    ones = np.ones((1, 5, 1, 16), np.float16)
    mask = np.full((1, 1, 1, 5), -np.inf, np.float32)
    (result,) = testing.run_kernel(kernel, ones, ones, ones, mask, np.zeros_like(ones))
    assert np.array_equal(result, ones)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES.values()), ids=list(ARCHITECTURES))
def test_machine_code_has_tensor_cores_and_no_stack(architecture: Architecture) -> None:
    if testing.unavailable(architecture.name) is not None:
        pytest.skip("nvcc is needed to compile")
    problem = Attention(12, 128, 128, 0.1, "float16", Mask(True, False, False))
    sizes = rule(problem, architecture.shared_memory)
    found = machine_code.report(attention_kernel(problem, architecture, sizes, "attention"))
    assert found.spill == 0
    assert found.stack == 0
    assert any(name.startswith("HMMA") for name in found.instructions)
    assert any(name.startswith("LDSM") for name in found.instructions)


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        (Attention(1, 16, 16, 1.0, "float32"), "float32"),
        (Attention(1, 12, 16, 1.0, "float16"), "12"),
        (Attention(1, 16, 512, 1.0, "float16"), "512"),
    ],
)
def test_refusals_are_sentences(problem: Attention, word: str) -> None:
    reason = refusal(problem, SM_80)
    assert reason is not None
    assert word in reason
