"""Norms, softmax, quantization per token and other chains over rows, against torch."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from tvm import relax

R = relax.op
F = torch.nn.functional
COLUMNS = [1, 7, 33, 1000, 4097]


def rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("columns", COLUMNS)
def test_layer_norm(scheduled: Any, columns: int) -> None:
    built = scheduled(
        lambda emit, x, gain, shift: emit(R.nn.layer_norm(x, gain, shift, axes=[-1])),
        ("n", columns),
        (columns,),
        (columns,),
    )
    assert built.launches == 1
    x, gain, shift = rows(5, columns), rows(columns, seed=1), rows(columns, seed=2)
    want = F.layer_norm(torch.tensor(x), (columns,), torch.tensor(gain), torch.tensor(shift))
    np.testing.assert_allclose(built(x, gain, shift)[0], want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("columns", [7, 768])
def test_rms_norm(scheduled: Any, columns: int) -> None:
    built = scheduled(
        lambda emit, x, gain: emit(R.nn.rms_norm(x, gain, axes=[-1], epsilon=1e-5)),
        ("n", columns),
        (columns,),
    )
    x, gain = rows(3, columns), rows(columns, seed=1)
    want = F.rms_norm(torch.tensor(x), (columns,), torch.tensor(gain), 1e-5)
    np.testing.assert_allclose(built(x, gain)[0], want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("columns", [*COLUMNS, "t"])
def test_softmax_with_scale_and_mask(scheduled: Any, columns: int | str) -> None:
    def write(emit: Any, x: Any, mask: Any) -> Any:
        scores = emit(R.add(emit(R.multiply(x, relax.const(0.25))), mask))
        return emit(R.nn.softmax(scores))

    built = scheduled(write, ("b", 2, columns), (1, 1, columns))
    assert built.launches == 1
    length = columns if isinstance(columns, int) else 300
    x, mask = rows(3, 2, length), np.where(rows(1, 1, length) < -0.3, np.float32(-1e9), 0)
    want = torch.softmax(torch.tensor(x) * 0.25 + torch.tensor(mask), -1)
    np.testing.assert_allclose(built(x, mask)[0], want, rtol=1e-5, atol=1e-7)


def test_log_softmax(scheduled: Any) -> None:
    built = scheduled(lambda emit, x: emit(R.nn.log_softmax(x)), ("n", 1000))
    x = rows(2, 1000) * 4
    want = torch.log_softmax(torch.tensor(x), -1)
    np.testing.assert_allclose(built(x)[0], want, rtol=1e-5, atol=1e-5)


def test_half_types_are_rounded_once(scheduled: Any) -> None:
    x = (rows(4, 512) * 3).astype(np.float16)
    built = scheduled(lambda emit, x: emit(R.nn.softmax(x)), ("n", 512), dtypes=["float16"])
    want = torch.softmax(torch.tensor(x.astype(np.float32)), -1).numpy().astype(np.float16)
    differing = np.mean(built(x)[0] != want)
    assert differing < 0.005  # ties that float32's own error moves


def test_bfloat16(scheduled: Any) -> None:
    x = rows(3, 96).astype(ml_dtypes.bfloat16)

    def write(emit: Any, x: Any) -> Any:
        wide = emit(R.astype(emit(R.nn.softmax(x)), "float32"))
        return wide

    built = scheduled(write, ("n", 96), dtypes=["bfloat16"])
    want = torch.softmax(torch.tensor(x.astype(np.float32)), -1).numpy()
    np.testing.assert_allclose(built(x)[0], want, rtol=2**-8)


def residual_norm_quantize(emit: Any, x: Any, other: Any, gain: Any, shift: Any) -> Any:
    total = emit(R.add(x, other))
    norm = emit(R.nn.layer_norm(total, gain, shift, axes=[-1]))
    largest = emit(R.max(emit(R.abs(norm)), axis=[-1], keepdims=True))
    scale = emit(R.divide(largest, relax.const(127.0)))
    codes = emit(R.clip(emit(R.round(emit(R.divide(norm, scale)))), -127, 127))
    return relax.Tuple([total, emit(R.astype(codes, "int8")), scale])


@pytest.mark.parametrize("columns", [33, 768, 4097])
def test_residual_norm_and_quantization_are_one_kernel(scheduled: Any, columns: int) -> None:
    shapes = [("n", columns), ("n", columns), (columns,), (columns,)]
    built = scheduled(residual_norm_quantize, *shapes)
    assert built.launches == 1
    x, other = rows(5, columns), rows(5, columns, seed=1)
    gain, shift = rows(columns, seed=2), rows(columns, seed=3)
    total, codes, scale = built(x, other, gain, shift)
    np.testing.assert_array_equal(total, x + other)
    norm = F.layer_norm(
        torch.tensor(x + other), (columns,), torch.tensor(gain), torch.tensor(shift)
    ).numpy()
    np.testing.assert_allclose(scale, np.abs(norm).max(-1, keepdims=True) / 127, rtol=1e-5)
    # A code may differ by one where float32 puts the quotient on the other side of a tie.
    difference = codes - np.rint(norm / scale)
    assert np.abs(difference).max() <= 1 and np.mean(difference != 0) < 1e-3
    assert (np.abs(codes).max(-1) == 127).all()


def test_codes_fit_the_stored_scale(scheduled: Any) -> None:
    """A scale that is stored as float16 is the one that codes are made with."""

    def write(emit: Any, x: Any) -> Any:
        largest = emit(R.max(emit(R.abs(x)), axis=[-1], keepdims=True))
        scale = emit(R.divide(largest, relax.const(np.float16(127.0))))
        codes = emit(R.round(emit(R.divide(x, scale))))
        return relax.Tuple([emit(R.astype(codes, "int8")), scale])

    built = scheduled(write, ("n", 200), dtypes=["float16"])
    assert built.launches == 1
    x = (rows(20, 200) * 3).astype(np.float16)
    codes, scale = built(x)
    wide = np.abs(x.astype(np.float32)).max(-1, keepdims=True) / np.float32(127)
    np.testing.assert_array_equal(scale, wide.astype(np.float16))
    np.testing.assert_array_equal(
        codes, np.rint(x.astype(np.float32) / scale.astype(np.float32)).astype(np.int8)
    )


def test_equal_layers_are_one_function(scheduled: Any) -> None:
    def write(emit: Any, x: Any, gain: Any, shift: Any) -> Any:
        for _ in range(3):
            x = emit(R.nn.layer_norm(emit(R.add(x, x)), gain, shift, axes=[-1]))
            x = emit(R.sort(x))  # which nothing is merged with
        return x

    built = scheduled(write, ("n", 12), (12,), (12,))
    assert len(built.kernels) == 2
    x, gain, shift = rows(2, 12), rows(12, seed=1), rows(12, seed=2)
    want = torch.tensor(x)
    for _ in range(3):
        want = F.layer_norm(want * 2, (12,), torch.tensor(gain), torch.tensor(shift))
        want = torch.sort(want).values
    np.testing.assert_allclose(built(x, gain, shift)[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [([-1], (5, 4097)), ([-1], (3, 2)), (None, (33, 100)), ([0], (65, 40)), ([1], (3, 33, 8)),
     ([1, 2], (4, 9, 11)), ([0, 2], (3, 5, 70))],
)  # fmt: skip
@pytest.mark.parametrize("name", ["max", "mean"])
def test_reductions(scheduled: Any, name: str, axes: list[int] | None, shape: Any) -> None:
    built = scheduled(lambda emit, x: emit(getattr(R, name)(x, axis=axes)), shape)
    x = rows(*shape)
    want = getattr(np, name)(x.astype(np.float64), axis=None if axes is None else tuple(axes))
    np.testing.assert_allclose(built(x)[0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint8"])
def test_integer_maximum(scheduled: Any, dtype: str) -> None:
    built = scheduled(lambda emit, x: emit(R.max(x, axis=[-1])), ("n", 130), dtypes=[dtype])
    x = np.random.default_rng(0).integers(0, 127, (4, 130)).astype(dtype)
    if not dtype.startswith("u"):
        x -= 100
    np.testing.assert_array_equal(built(x)[0], x.max(-1))
