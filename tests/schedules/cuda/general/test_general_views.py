"""Reshapes between what moves and computes elements are part of one kernel; others stay views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax

R = relax.op


def rotary(emit: Any, x: Any, cosine: Any, sine: Any) -> Any:
    """Pairs of neighbours [n, t, heads, size] turned by angles [t, size / 2], as exported."""
    batch, tokens, heads, size = x.ty.shape.values
    pairs = emit(R.reshape(x, (batch, tokens, heads, int(size) // 2, 2)))
    one, other = (
        emit(
            R.reshape(
                emit(R.strided_slice(pairs, (4,), (place,), (place + 1,), (1,))),
                (batch, tokens, heads, int(size) // 2),
            )
        )
        for place in range(2)
    )
    angles = [emit(R.reshape(angle, (1, tokens, 1, int(size) // 2))) for angle in (cosine, sine)]
    real = emit(R.subtract(emit(R.multiply(one, angles[0])), emit(R.multiply(other, angles[1]))))
    imaginary = emit(R.add(emit(R.multiply(one, angles[1])), emit(R.multiply(other, angles[0]))))
    ends = [
        emit(R.reshape(part, (batch, tokens, heads, int(size) // 2, 1)))
        for part in (real, imaginary)
    ]
    return emit(R.reshape(emit(R.concat(ends, axis=4)), (batch, tokens, heads, size)))


def calls(built: Any) -> int:
    """Kernels that the graph calls; each is checked to launch once."""
    graph = built.module["main"].script()
    called = {name: function for name, function in built.kernels.items() if f".{name}," in graph}
    assert all(f.script().count('thread="blockIdx.x"') == 1 for f in called.values())
    return int(graph.count("R.call_tir("))


@pytest.mark.parametrize("half", [False, True])
def test_a_rotary_embedding_is_one_kernel(scheduled: Any, half: bool) -> None:
    def write(emit: Any, x: Any, cosine: Any, sine: Any) -> Any:
        wide = emit(R.astype(x, "float32")) if half else x
        made = rotary(emit, wide, cosine, sine)
        return emit(R.astype(made, "float16")) if half else emit(R.negative(made))

    dtype = "float16" if half else "float32"
    built = scheduled(
        write, ("n", "t", 4, 8), ("t", 4), ("t", 4), dtypes=[dtype, "float32", "float32"]
    )
    assert calls(built) == 1
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 5, 4, 8)).astype(dtype)
    angle = rng.uniform(0, 6, (5, 4))
    cosine, sine = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * (cosine + 1j * sine)[:, None]
    want = np.stack([turned.real, turned.imag], -1).reshape(x.shape)
    got = built(x, cosine, sine)[0]
    np.testing.assert_allclose(
        got, want if half else -want, rtol=2e-3 if half else 1e-5, atol=2e-3 if half else 1e-6
    )


def test_regrouped_constant_sizes_are_followed(scheduled: Any) -> None:
    """[n, 6, 4] as [n, 3, 8], between operators that are fused with it."""

    def write(emit: Any, x: Any, y: Any) -> Any:
        turned = emit(R.permute_dims(x, (0, 2, 1)))
        moved = emit(R.reshape(turned, (x.ty.shape.values[0], 3, 8)))
        return emit(R.add(moved, y))

    built = scheduled(write, ("n", 4, 6), ("n", 3, 8))
    assert calls(built) == 1
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((5, 4, 6)), rng.standard_normal((5, 3, 8))
    x, y = x.astype(np.float32), y.astype(np.float32)
    want = x.transpose(0, 2, 1).reshape(5, 3, 8) + y
    np.testing.assert_array_equal(built(x, y)[0], want)


def test_regrouped_symbolic_sizes_stay_views(scheduled: Any) -> None:
    """[n, t, 4] as [n·t, 4]: no kernel computes with quotients of sizes of run time."""

    def write(emit: Any, x: Any) -> Any:
        batch, tokens, size = x.ty.shape.values
        negative = emit(R.negative(x))
        flat = emit(R.reshape(negative, (batch * tokens, size)))
        return emit(R.abs(flat))

    built = scheduled(write, ("n", "t", 4))
    assert "reshape" in built.module["main"].script()
    x = np.random.default_rng(5).standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(built(x)[0], np.abs(x).reshape(6, 4))


def test_a_slice_of_a_cache_with_the_newest_key_is_one_kernel(scheduled: Any) -> None:
    """[2, n, p, 4] at one layer, and [n, 1, 4] behind it along a symbolic axis."""

    def write(emit: Any, cache: Any, newest: Any) -> Any:
        _, batch, length, size = cache.ty.shape.values
        layer = emit(R.strided_slice(cache, (0,), (1,), (2,), (1,)))
        layer = emit(R.reshape(layer, (batch, length, size)))
        return emit(R.concat([layer, emit(R.negative(newest))], axis=1))

    built = scheduled(write, (2, "n", "p", 4), ("n", 1, 4))
    assert calls(built) == 1
    rng = np.random.default_rng(6)
    cache = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    newest = rng.standard_normal((3, 1, 4)).astype(np.float32)
    want = np.concatenate([cache[1], -newest], axis=1)
    np.testing.assert_array_equal(built(cache, newest)[0], want)
