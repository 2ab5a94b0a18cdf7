"""Elementwise operators, movements, windows, sorting and scattering, against numpy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tvm import relax

R = relax.op
F = torch.nn.functional


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("columns", [1, 7, 33, 64, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_elementwise_with_broadcast(scheduled: Any, columns: int, dtype: str) -> None:
    def write(emit: Any, x: Any, row: Any, column: Any) -> Any:
        return emit(R.tanh(emit(R.multiply(emit(R.add(x, row)), column))))

    built = scheduled(write, ("n", columns), (columns,), ("n", 1), dtypes=[dtype] * 3)
    assert built.launches == 1
    x, row, column = (numbers(*s).astype(dtype) for s in [(5, columns), (columns,), (5, 1)])
    wide = [a.astype(np.float32) for a in (x, row, column)]
    want = np.tanh((wide[0] + wide[1]) * wide[2])
    tolerance = 1e-6 if dtype == "float32" else 6e-4
    np.testing.assert_allclose(built(x, row, column)[0], want, rtol=tolerance, atol=1e-6)


def test_vectors_are_16_bytes(scheduled: Any) -> None:
    built = scheduled(lambda emit, x: emit(R.nn.relu(x)), ("n", 64), dtypes=["float16"])
    (kernel,) = built.kernels.values()
    assert "T.vectorized(T.int64(8))" in kernel.script()


def test_casts(scheduled: Any) -> None:
    def write(emit: Any, x: Any) -> Any:
        half = emit(R.astype(x, "float16"))
        positive = emit(R.greater(x, relax.const(0.0)))
        return relax.Tuple([half, emit(R.astype(emit(R.round(x)), "int8")), positive])

    x = numbers(6, 40) * 20
    half, whole, positive = scheduled(write, (6, "t"))(x)
    np.testing.assert_array_equal(half, x.astype(np.float16))
    np.testing.assert_array_equal(whole, np.rint(x).astype(np.int8))
    np.testing.assert_array_equal(positive, x > 0)


MOVES: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "transpose": (lambda emit, x: emit(R.permute_dims(x, [1, 0])), lambda x: x.T, (70, 33)),
    "inner transpose": (
        lambda emit, x: emit(R.exp(emit(R.permute_dims(x, [0, 2, 1])))),
        lambda x: np.exp(x.transpose(0, 2, 1)),
        (2, 40, 65),
    ),
    "heads": (
        lambda emit, x: emit(R.permute_dims(x, [0, 2, 1, 3])),
        lambda x: x.transpose(0, 2, 1, 3),
        (2, 5, 4, 16),
    ),
    "pad": (
        lambda emit, x: emit(R.nn.pad(x, [1, 2, 3, 0])),
        lambda x: np.pad(x, [(1, 2), (3, 0)]),
        (4, 9),
    ),
    "concat": (lambda emit, x: emit(R.concat([x, x], 1)), lambda x: np.hstack([x, x]), (4, 9)),
    "slice": (
        lambda emit, x: emit(R.strided_slice(x, [1], [1], [9], [3])),
        lambda x: x[:, 1:9:3],
        (4, 9),
    ),
    "running sum": (lambda emit, x: emit(R.cumsum(x, 1)), lambda x: np.cumsum(x, 1), (4, 9)),
    "arg-max": (lambda emit, x: emit(R.argmax(x, 1)), lambda x: x.argmax(1), (5, 300)),
    "long arg-max": (lambda emit, x: emit(R.argmax(x, 1)), lambda x: x.argmax(1), (3, 4097)),
    "arg-min of equals": (
        lambda emit, x: emit(R.argmin(emit(R.round(x)), 1)),
        lambda x: np.rint(x).argmin(1),
        (9, 1300),
    ),
    "arg-min of rows": (lambda emit, x: emit(R.argmin(x, 0)), lambda x: x.argmin(0), (5, 30)),
    "sort": (lambda emit, x: emit(R.sort(x)), lambda x: np.sort(x), (4, 19)),
    "where": (
        lambda emit, x: emit(R.where(emit(R.greater(x, relax.const(0.0))), x, emit(R.exp(x)))),
        lambda x: np.where(x > 0, x, np.exp(x)),
        (4, 19),
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(scheduled: Any, name: str) -> None:
    write, meaning, shape = MOVES[name]
    x = numbers(*shape)
    np.testing.assert_allclose(scheduled(write, shape)(x)[0], meaning(x), rtol=1e-6)


def test_transposes_go_through_shared_memory(scheduled: Any) -> None:
    built = scheduled(lambda emit, x: emit(R.permute_dims(x, [0, 2, 1])), ("n", 64, "t"))
    (kernel,) = built.kernels.values()
    assert "alloc_shared" in kernel.script()
    x = numbers(2, 64, 37)
    np.testing.assert_array_equal(built(x)[0], x.transpose(0, 2, 1))


def test_topk(scheduled: Any) -> None:
    x = numbers(3, 50)
    values, indices = scheduled(lambda emit, x: emit(R.topk(x, 4)), ("n", 50))(x)
    want = torch.topk(torch.tensor(x), 4)
    np.testing.assert_array_equal(values, want.values)
    np.testing.assert_array_equal(indices, want.indices)


def test_take_and_scatter(scheduled: Any) -> None:
    table, at = numbers(20, 8), np.array([3, 0, 19, 3])
    built = scheduled(lambda emit, t, i: emit(R.take(t, i, 0)), (20, 8), ("n",),
                      dtypes=["float32", "int64"])  # fmt: skip
    np.testing.assert_array_equal(built(table, at)[0], table[at])
    index = np.array([[1, 4], [1, 1], [0, 2]])
    data, updates = numbers(3, 5), numbers(3, 2, seed=1)
    built = scheduled(
        lambda emit, x, i, u: emit(R.scatter_elements(x, i, u, axis=1, reduction="add")),
        (3, 5), (3, 2), (3, 2), dtypes=["float32", "int64", "float32"],
    )  # fmt: skip
    want = torch.tensor(data).scatter_add(1, torch.tensor(index), torch.tensor(updates))
    np.testing.assert_allclose(built(data, index, updates)[0], want, rtol=1e-6)


def test_windows(scheduled: Any) -> None:
    x = numbers(2, 3, 17, 19)
    for name, operator in {"max_pool2d": F.max_pool2d, "avg_pool2d": F.avg_pool2d}.items():
        built = scheduled(
            lambda emit, x, name=name: emit(getattr(R.nn, name)(x, (3, 3), (2, 2))), x.shape
        )
        np.testing.assert_allclose(built(x)[0], operator(torch.tensor(x), 3, 2), rtol=1e-5)
    resized = scheduled(
        lambda emit, x: emit(R.image.resize2d(x, (34, 38), method="nearest_neighbor",
                                              coordinate_transformation_mode="asymmetric",
                                              rounding_method="floor")),
        x.shape,
    )(x)[0]  # fmt: skip
    np.testing.assert_array_equal(resized, F.interpolate(torch.tensor(x), scale_factor=2))


@pytest.mark.parametrize(
    ("left", "right"),
    [((70, 33), (33, 65)), (("n", 40), (40, 24)), ((1, 64), (64, 48)),
     ((2, 3, 20, 16), (2, 3, 16, 50)), ((5, 8), (8, 3))],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_products(scheduled: Any, left: Any, right: Any, dtype: str) -> None:
    def write(emit: Any, x: Any, y: Any) -> Any:
        return emit(R.nn.relu(emit(R.matmul(x, y))))

    built = scheduled(write, left, right, dtypes=[dtype] * 2)
    x = numbers(*(37 if isinstance(v, str) else v for v in left)).astype(dtype)
    y = numbers(*right, seed=1).astype(dtype)
    want = np.maximum(x.astype(np.float64) @ y.astype(np.float64), 0)
    tolerance = 1e-5 if dtype == "float32" else 1e-3
    np.testing.assert_allclose(built(x, y)[0], want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("image", "weight", "groups", "padding"),
    [((2, 4, 9, 11), (16, 4, 3, 3), 1, 1), ((2, 4, 9, 11), (16, 1, 3, 3), 4, 1),
     ((1, 16, 10, 10), (24, 16, 1, 1), 1, 0), ((1, 8, 12, 12), (24, 8, 3, 3), 1, 1)],
)  # fmt: skip
def test_convolutions(scheduled: Any, image: Any, weight: Any, groups: int, padding: int) -> None:
    x, w = numbers(*image), numbers(*weight, seed=1)
    built = scheduled(
        lambda emit, x, w: emit(R.nn.conv2d(x, w, strides=2, padding=padding, groups=groups)),
        image,
        weight,
    )
    want = F.conv2d(torch.tensor(x), torch.tensor(w), stride=2, padding=padding, groups=groups)
    np.testing.assert_allclose(built(x, w)[0], want, rtol=1e-4, atol=1e-5)
