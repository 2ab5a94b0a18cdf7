"""Convolutions and poolings against torch: images whose rows fit vectors and images that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tvm import relax

R = relax.op
F = torch.nn.functional


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(
    "image, weight, options",
    [
        ((1, 3, 32, 32), (16, 3, 3, 3), {"padding": 1}),
        ((2, 16, 32, 32), (20, 16, 3, 3), {"padding": 1, "stride": 2}),
        ((1, 16, 25, 5), (24, 16, 1, 1), {}),
        ((1, 16, 16, 16), (33, 16, 1, 1), {"stride": 2}),
        ((2, 1, 49, 10), (8, 1, 10, 4), {"stride": 2, "padding": (5, 1)}),
        ((1, 8, 9, 11), (8, 1, 3, 3), {"groups": 8, "padding": 1}),
        ((1, 8, 32, 32), (8, 1, 3, 3), {"groups": 8, "padding": 1, "stride": 2}),
        ((1, 8, 20, 20), (12, 4, 3, 3), {"groups": 2}),
        ((1, 5, 17, 3), (6, 5, 3, 2), {"dilation": (2, 1), "padding": 2}),
    ],
)
def test_convolution_with_bias_and_relu(
    built, level: str, image: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]
) -> None:
    w, b = random(*weight), random(weight[0], seed=2)
    names = {"stride": "strides"}

    def write(emit: Any, x: relax.Var) -> relax.Expr:
        arguments = {names.get(name, name): value for name, value in options.items()}
        y = emit(R.nn.conv2d(x, relax.const(w), **arguments))
        return emit(R.nn.relu(emit(R.add(y, relax.const(b.reshape(1, -1, 1, 1))))))

    run = built(write, image, mcpu=level)
    assert run.unscheduled == []
    x = random(*image, seed=1)
    wanted = F.relu(F.conv2d(*map(torch.from_numpy, (x, w, b)), **options)).numpy()
    np.testing.assert_allclose(run(x), wanted, rtol=1e-4, atol=1e-4)


def test_any_batch(built) -> None:
    w = random(16, 8, 3, 3)
    run = built(lambda emit, x: emit(R.nn.conv2d(x, relax.const(w), padding=1)), ("n", 8, 16, 16))
    for n in (0, 1, 3):
        x = random(n, 8, 16, 16, seed=1)
        wanted = F.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1).numpy()
        np.testing.assert_allclose(run(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [6, 32])
@pytest.mark.parametrize("kind", ["max", "mean", "global"])
def test_pooling(built, kind: str, size: int) -> None:
    def write(emit: Any, x: relax.Var) -> relax.Expr:
        if kind == "global":
            return emit(R.mean(x, axis=[2, 3]))
        pool = R.nn.max_pool2d if kind == "max" else R.nn.avg_pool2d
        return emit(pool(x, pool_size=(2, 2), strides=(2, 2)))

    x = random(2, 5, size, size)
    image = torch.from_numpy(x)
    wanted = {
        "max": F.max_pool2d(image, 2),
        "mean": F.avg_pool2d(image, 2),
        "global": image.mean((2, 3)),
    }[kind]
    np.testing.assert_allclose(
        built(write, (2, 5, size, size))(x), wanted.numpy(), rtol=1e-5, atol=1e-6
    )
