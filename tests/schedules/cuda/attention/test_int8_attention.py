"""Attention on bytes against exact codes and sums, on a GPU or the emulated one."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES, Architecture
from fewbits.schedules.cuda.attention.int8_kernel import Int8Attention, int8_attention
from fewbits.schedules.cuda.attention.problem import Mask
from fewbits.targets.cuda import machine_code, testing


def _run(
    problem: Int8Attention, gpu: testing.Gpu, extents: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel gives, and what codes rounded from float64 exponentials give."""
    generator = np.random.default_rng(sum(extents))
    batch, rows, columns = extents

    def codes(tokens: int, size: int) -> np.ndarray:
        shape = (batch, problem.heads, tokens, size)
        return generator.integers(-127, 128, shape, dtype=np.int8)

    def scales(tokens: int) -> np.ndarray:
        shape = (batch, problem.heads, tokens)
        return generator.uniform(0.005, 0.02, shape).astype(np.float32)

    q, k = codes(rows, problem.size), codes(columns, problem.size)
    v = codes(columns, problem.value_size)
    q_scales, k_scales, v_scale = scales(rows), scales(columns), np.array([0.017], np.float32)
    q_first, k_first, v_first, out_first = problem.heads_first
    given = [
        _lying(q, q_first), _lying(q_scales, q_first), _lying(k, k_first),
        _lying(k_scales, k_first), _lying(v, v_first), v_scale,
    ]  # fmt: skip
    scores = q.astype(np.float64) @ k.astype(np.float64).transpose(0, 1, 3, 2)
    scores *= q_scales[..., None] * k_scales[:, :, None, :] * problem.scale
    if problem.mask is not None:
        over = problem.mask
        shape = (
            batch if over.batch else 1, problem.heads if over.heads else 1,
            rows if over.rows else 1, columns,
        )  # fmt: skip
        mask = np.where(generator.random(shape) < 0.4, -1e9, 0.0).astype(np.float32)
        scores = scores + mask
        given.append(mask)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    share = np.rint(127 * weights) / (127 * weights.sum(-1, keepdims=True))
    expected = share @ (v.astype(np.float64) * float(v_scale[0]))
    kernel, _ = int8_attention(problem, gpu.architecture, "int8_attention")
    poison = np.full(_lying(expected, out_first).shape, np.nan, np.float16)
    (result,) = testing.run_kernel(kernel, *given, poison)
    return _lying(result, out_first).astype(np.float64), expected


def _lying(array: np.ndarray, heads_first: bool) -> np.ndarray:
    """An array with heads first, or with tokens first; and the way back."""
    return array if heads_first else np.ascontiguousarray(array.swapaxes(1, 2))


def _check(result: np.ndarray, expected: np.ndarray) -> None:
    # Half floats round; an exponential at a tie may have the next code, a 127th of its row.
    assert np.isfinite(result).all()
    assert np.linalg.norm(result - expected) <= 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("gpu", list(ARCHITECTURES), indirect=True)
@pytest.mark.parametrize("extents", [(1, 1, 1), (2, 37, 70), (1, 65, 130)])
def test_rows_and_columns_of_any_number(gpu: testing.Gpu, extents: tuple[int, int, int]) -> None:
    _check(*_run(Int8Attention(2, 32, 32, 32**-0.5, "float16"), gpu, extents))


@pytest.mark.parametrize(("size", "value_size"), [(16, 48), (48, 16), (128, 128)])
def test_heads_of_any_whole_number_of_copies(gpu: testing.Gpu, size: int, value_size: int) -> None:
    _check(*_run(Int8Attention(1, size, value_size, size**-0.5, "float16"), gpu, (1, 20, 70)))


@pytest.mark.parametrize("mask", [Mask(True, False, False), Mask(False, True, True)])
def test_masks_along_any_axes(gpu: testing.Gpu, mask: Mask) -> None:
    _check(*_run(Int8Attention(2, 32, 32, 0.2, "float16", mask), gpu, (2, 18, 50)))


@pytest.mark.parametrize("first", [(False,) * 4, (True, False, False, True)])
def test_heads_before_or_after_tokens(gpu: testing.Gpu, first: tuple[bool, ...]) -> None:
    problem = Int8Attention(3, 32, 32, 0.2, "float16", None, first)  # type: ignore[arg-type]
    _check(*_run(problem, gpu, (2, 18, 20)))


@pytest.mark.parametrize("architecture", list(ARCHITECTURES.values()), ids=list(ARCHITECTURES))
def test_machine_code_multiplies_bytes_without_a_stack(architecture: Architecture) -> None:
    if testing.unavailable(architecture.name) is not None:
        pytest.skip("nvcc is needed to compile")
    kernel, _ = int8_attention(
        Int8Attention(12, 128, 128, 0.1, "float16"), architecture, "int8_attention"
    )
    found = machine_code.report(kernel)
    assert found.spill == 0
    assert found.stack == 0
    assert any(name.startswith("IMMA") for name in found.instructions)


@pytest.mark.parametrize(
    ("problem", "word"),
    [
        (Int8Attention(1, 16, 16, 1.0, "float32"), "float32"),
        (Int8Attention(1, 24, 16, 1.0, "float16"), "24"),
        (Int8Attention(1, 16, 512, 1.0, "float16"), "512"),
    ],
)
def test_refusals_are_sentences(problem: Int8Attention, word: str) -> None:
    reason = problem.refusal()
    assert reason is not None
    assert word in reason
