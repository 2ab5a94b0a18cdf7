"""Attention whose keys several blocks share, and heads that share keys and values."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES, SM_80
from fewbits.schedules.cuda.attention import (
    Attention,
    attention_kernel,
    combine_parts,
    partial_shapes,
    refusal,
)
from fewbits.schedules.cuda.attention.problem import Mask
from fewbits.schedules.cuda.attention.sizes import Sizes, rule
from fewbits.targets.cuda import testing


def _expected(
    problem: Attention, q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: float | np.ndarray
) -> np.ndarray:
    q, k, v = (a.astype(np.float64).transpose(0, 2, 1, 3) for a in (q, k, v))
    k, v = (np.repeat(a, problem.shared, axis=1) for a in (k, v))
    scores = q @ k.transpose(0, 1, 3, 2) * problem.scale + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3)


def _arrays(problem: Attention, batch: int, rows: int, columns: int) -> list[np.ndarray]:
    generator = np.random.default_rng(columns)
    shapes = [
        problem.shape(place, batch, count) for place, count in enumerate((rows, columns, columns))
    ]
    return [generator.standard_normal(shape).astype(np.float16) for shape in shapes]


def _in_parts(
    problem: Attention,
    sizes: Sizes,
    gpu: testing.Gpu,
    arrays: list[np.ndarray],
    mask: np.ndarray | None = None,
) -> np.ndarray:
    batch, rows = arrays[0].shape[:2]
    first = attention_kernel(problem, gpu.architecture, sizes, "parts")
    sums, states = (
        np.full(shape, np.nan, np.float32)
        for shape in partial_shapes(problem, sizes.parts, batch, rows)
    )
    given = [*arrays, *([] if mask is None else [mask]), sums, states]
    partial = testing.run_kernel(first, *given, outputs=2)
    second, _ = combine_parts(problem, sizes.parts, gpu.architecture, "combine")
    result = np.full(problem.shape(3, batch, rows), np.nan, np.float16)
    return testing.run_kernel(second, *partial, result)[0].astype(np.float64)


@pytest.mark.parametrize("gpu", list(ARCHITECTURES), indirect=True)
@pytest.mark.parametrize("columns", [1, 70, 300])
def test_one_row_and_a_long_cache(gpu: testing.Gpu, columns: int) -> None:
    """More parts than pieces of keys, too: parts without keys add nothing."""
    problem = Attention(2, 32, 24, 32**-0.5, "float16")
    arrays = _arrays(problem, 2, 1, columns)
    result = _in_parts(problem, Sizes(1, 32, parts=4), gpu, arrays)
    expected = _expected(problem, *arrays, 0.0)
    assert np.linalg.norm(result - expected) <= 2e-3 * np.linalg.norm(expected)


def test_parts_that_are_wholly_masked(gpu: testing.Gpu) -> None:
    problem = Attention(1, 16, 16, 0.25, "float16", Mask(False, False, True))
    arrays = _arrays(problem, 1, 5, 130)
    mask = np.where(np.arange(130) < np.arange(5)[:, None] + 20, 0.0, -np.inf)
    mask = mask.astype(np.float32)[None, None]
    result = _in_parts(problem, Sizes(1, 16, 1, parts=8), gpu, arrays, mask)
    expected = _expected(problem, *arrays, mask)
    assert np.linalg.norm(result - expected) <= 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("parts", [1, 2])
def test_heads_that_share_keys_and_values(gpu: testing.Gpu, parts: int) -> None:
    problem = Attention(6, 16, 16, 0.25, "float16", shared=3)
    arrays = _arrays(problem, 2, 9, 40)
    assert arrays[1].shape == (2, 40, 2, 16)
    sizes = Sizes(1, 16, parts=parts)
    if parts > 1:
        result = _in_parts(problem, sizes, gpu, arrays)
    else:
        kernel = attention_kernel(problem, gpu.architecture, sizes, "attention")
        (result,) = testing.run_kernel(kernel, *arrays, np.full_like(arrays[0], np.nan))
    expected = _expected(problem, *arrays, 0.0)
    assert np.linalg.norm(result - expected) <= 2e-3 * np.linalg.norm(expected)


def test_only_few_known_rows_are_shared_between_blocks() -> None:
    problem = Attention(12, 64, 64, 0.125, "float16")
    memory = SM_80.shared_memory
    assert rule(problem, memory).parts == rule(problem, memory, rows=200).parts == 1
    step = rule(problem, memory, rows=1)
    assert step.parts > 1 and step.rows == 16


def test_groups_have_to_divide_the_heads() -> None:
    reason = refusal(Attention(4, 16, 16, 1.0, "float16", shared=3), SM_80)
    assert reason is not None and "3" in reason
