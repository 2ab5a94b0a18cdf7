"""Elementwise operators, reductions, norms and what they make together, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tvm import relax

R = relax.op
F = torch.nn.functional
SIZES = ((1, 1), (1, 7), (2, 16), (3, 13), (1, 128), (2, 33), (0, 5))
GAIN = np.linspace(0.5, 2, 48, dtype=np.float32)
SHIFT = np.linspace(-1, 1, 48, dtype=np.float32)

Write = Callable[..., relax.Expr]
#: name: what is built, the same in torch, the inputs' shapes.
CASES: dict[str, tuple[Write, Callable[..., torch.Tensor], list[tuple[int | str, ...]]]] = {
    "softmax": (
        lambda emit, x: emit(R.nn.softmax(x)),
        lambda x: torch.softmax(x, -1),
        [("n", 2, "t", "t")],
    ),
    "softmax along another axis": (
        lambda emit, x: emit(R.nn.softmax(x, axis=1)),
        lambda x: torch.softmax(x, 1),
        [("n", "t", 5)],
    ),
    "layer norm": (
        lambda emit, x: emit(R.nn.layer_norm(x, relax.const(GAIN), relax.const(SHIFT), axes=[-1])),
        lambda x: F.layer_norm(x, (48,), torch.tensor(GAIN), torch.tensor(SHIFT)),
        [("n", "t", 48)],
    ),
    "RMS norm": (
        lambda emit, x: emit(R.nn.rms_norm(x, relax.const(GAIN), axes=[-1])),
        lambda x: F.rms_norm(x, (48,), torch.tensor(GAIN), 1e-5),
        [("n", "t", 48)],
    ),
    "mean across memory": (
        lambda emit, x: emit(R.mean(x, axis=1)),
        lambda x: x.mean(1),
        [("n", "t", 50)],
    ),
    "maximum along memory": (
        lambda emit, x: emit(R.max(x, axis=-1)),
        lambda x: x.amax(-1),
        [("n", "t", 50)],
    ),
    "transpose": (
        lambda emit, x: emit(R.tanh(emit(R.permute_dims(x, [0, 2, 1])))),
        lambda x: torch.tanh(x.permute(0, 2, 1)),
        [("n", "t", 50)],
    ),
    "gated unit": (
        lambda emit, x, y: emit(R.multiply(emit(R.nn.silu(x)), y)),
        lambda x, y: F.silu(x) * y,
        [("n", "t", 50), ("n", "t", 50)],
    ),
    "broadcast": (
        lambda emit, x, y: emit(R.add(emit(R.exp(x)), y)),
        lambda x, y: torch.exp(x) + y,
        [("n", "t", 50), ("t", 1)],
    ),
    "concatenation": (
        lambda emit, x, y: emit(R.concat([x, y], axis=1)),
        lambda x, y: torch.cat([x, y], 1),
        [("n", "t", 50), ("n", 3, 50)],
    ),
}


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", CASES)
def test_symbolic_sizes(built, level: str, name: str) -> None:
    write, exact, shapes = CASES[name]
    run = built(write, *shapes, mcpu=level)
    assert run.unscheduled == []
    for n, t in SIZES:
        sizes: dict[Any, int] = {"n": n, "t": t}
        arrays = [random(*(sizes.get(v, v) for v in shape), seed=1) for shape in shapes]
        wanted = exact(*(torch.from_numpy(array) for array in arrays)).numpy()
        np.testing.assert_allclose(run(*arrays), wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", [(), (1,), (17,), (3, 1), (2, 3, 5, 7), (0, 4)])
def test_static_shapes_down_to_none(built, shape: tuple[int, ...]) -> None:
    run = built(lambda emit, x: emit(R.sqrt(emit(R.exp(x)))), shape)
    x = random(*shape)
    np.testing.assert_allclose(run(x), np.sqrt(np.exp(x)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (64, 500), (3, 4099)])
def test_sums_of_everything(built, shape: tuple[int, int]) -> None:
    run = built(lambda emit, x: emit(R.sum(x)), shape)
    x = random(*shape)
    np.testing.assert_allclose(run(x), x.astype(np.float64).sum(), rtol=1e-4, atol=1e-3)


def test_maximum_of_negative_numbers(built) -> None:
    run = built(lambda emit, x: emit(R.max(x, axis=-1)), ("n", 70))
    x = -np.abs(random(5, 70)) - 3
    np.testing.assert_array_equal(run(x), x.max(-1))


def test_integers(built) -> None:
    def write(emit: Any, x: relax.Var) -> relax.Expr:
        return emit(R.sum(emit(R.multiply(x, relax.const(3, "int32"))), axis=-1))

    x = np.random.default_rng(0).integers(-1000, 1000, (9, 75), dtype=np.int32)
    np.testing.assert_array_equal(built(write, ("n", 75), dtypes=["int32"])(x), 3 * x.sum(-1))


def test_embedding(built) -> None:
    table = random(11, 40)
    run = built(
        lambda emit, ids: emit(R.take(relax.const(table), ids, axis=0)),
        ("n", "t"),
        dtypes=["int64"],
    )
    ids = np.random.default_rng(0).integers(0, 11, (2, 9))
    np.testing.assert_array_equal(run(ids), table[ids])


def test_split_and_merge_heads(built) -> None:
    def write(emit: Any, x: relax.Var) -> relax.Expr:
        n, t = x.ty.shape.values[:2]
        split = emit(R.permute_dims(emit(R.reshape(x, (n, t, 5, 10))), [0, 2, 1, 3]))
        return emit(R.reshape(emit(R.permute_dims(split, [0, 2, 1, 3])), (n, t, 50)))

    x = random(3, 13, 50)
    np.testing.assert_array_equal(built(write, ("n", "t", 50))(x), x)


def test_what_has_no_known_form_still_runs(built) -> None:
    run = built(lambda emit, x: emit(R.argmax(x, axis=-1)), ("n", 50))
    assert run.unscheduled != []
    x = random(9, 50)
    np.testing.assert_array_equal(run(x), x.argmax(-1))
