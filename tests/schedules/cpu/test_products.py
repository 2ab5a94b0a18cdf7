"""Products of every kind and size against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import tvm
from fewbits.schedules.cpu import schedule_module
from fewbits.schedules.cpu.machine import Machine
from fewbits.schedules.cpu.tile import Tile, default_tile
from fewbits.schedules.tuning.choices import Choices, Site, Sizes, tile_sizes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import ir, relax

R = relax.op


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def close(actual: np.ndarray, exact: np.ndarray, terms: int) -> None:
    assert actual.shape == exact.shape
    np.testing.assert_allclose(actual, exact, rtol=0, atol=2e-6 * max(terms, 8) ** 0.5 * 4)


def linear(weight: np.ndarray, bias: np.ndarray) -> Any:
    def write(emit: Any, x: relax.Var, residual: relax.Var) -> relax.Expr:
        y = emit(R.matmul(x, relax.const(weight)))
        y = emit(R.nn.gelu(emit(R.add(y, relax.const(bias)))))
        return emit(R.add(y, residual))

    return write


def exact_linear(x: np.ndarray, w: np.ndarray, b: np.ndarray, r: np.ndarray) -> np.ndarray:
    y = torch.from_numpy(x).double() @ torch.from_numpy(w).double() + torch.from_numpy(b)
    return (torch.nn.functional.gelu(y) + torch.from_numpy(r)).numpy()


@pytest.mark.parametrize("inputs, outputs", [(37, 50), (64, 96), (1, 17), (129, 7), (33, 1)])
def test_linear_layer_with_all_that_follows_in_one_kernel(
    built, level: str, inputs: int, outputs: int
) -> None:
    w, b = random(inputs, outputs), random(outputs)
    run = built(linear(w, b), ("n", "t", inputs), ("n", "t", outputs), mcpu=level)
    assert run.unscheduled == []
    for n, t in ((1, 1), (1, 7), (2, 16), (3, 13), (1, 128), (0, 5), (5, 101)):
        x, r = random(n, t, inputs, seed=1), random(n, t, outputs, seed=2)
        close(run(x, r), exact_linear(x, w, b, r), inputs)


def test_packed_weights_replace_the_plain_ones(built) -> None:
    run = built(linear(random(64, 96), random(96)), ("n", "t", 64), ("n", "t", 96))
    weights = [
        np.prod(constant.value.shape)
        for constant in _constants(run.module["main"])
        if len(constant.value.shape) > 0 and np.prod(constant.value.shape) > 96
    ]
    assert weights == [64 * 96]


def _constants(function: relax.Function) -> list[Any]:
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, ir.GenericConst):
            found.append(node)

    relax.analysis.post_order_visit(function, visit)
    return found


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.integers(1, 40),
    summed=st.integers(8, 70),
    columns=st.integers(1, 100),
)
def test_static_sizes(built, rows: int, summed: int, columns: int) -> None:
    w = random(summed, columns)
    run = built(lambda emit, x: emit(R.matmul(x, relax.const(w))), (rows, summed))
    x = random(rows, summed, seed=1)
    close(run(x), x.astype(np.float64) @ w, summed)


def test_transposed_weight(built) -> None:
    w = random(50, 37)

    def write(emit: Any, x: relax.Var) -> relax.Expr:
        return emit(R.matmul(x, emit(R.permute_dims(relax.const(w)))))

    run = built(write, ("n", 37))
    x = random(19, 37, seed=1)
    close(run(x), x.astype(np.float64) @ w.T, 37)


def test_attention(built) -> None:
    def write(emit: Any, q: relax.Var, k: relax.Var, v: relax.Var, mask: relax.Var) -> relax.Expr:
        scores = emit(R.matmul(q, emit(R.permute_dims(k, [0, 1, 3, 2]))))
        scores = emit(R.add(emit(R.divide(scores, relax.const(5.5, "float32"))), mask))
        return emit(R.matmul(emit(R.nn.softmax(scores)), v))

    heads = ("n", 3, "t", 24)
    run = built(write, heads, heads, heads, ("n", 1, 1, "t"))
    assert run.unscheduled == []
    for t in (1, 5, 16, 33, 128):
        q, k, v = (random(2, 3, t, 24, seed=s) for s in range(3))
        hidden = random(2, 1, 1, t, seed=4) > 0.5
        mask = np.where(hidden, np.float32(-1e9), np.float32(0))
        scores = torch.from_numpy(q).double() @ torch.from_numpy(k).double().transpose(2, 3)
        weights = torch.softmax(scores / 5.5 + torch.from_numpy(mask), -1)
        close(run(q, k, v, mask), (weights @ torch.from_numpy(v).double()).numpy(), 24)


@pytest.mark.parametrize(
    "left, right",
    [((4, 7, 9), (9, 20)), ((2, 1, 5, 8), (3, 8, 17)), ((8,), (8, 5)), ((6, 8), (8,))],
)
def test_batches_broadcast(built, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    run = built(lambda emit, a, b: emit(R.matmul(a, b)), left, right)
    a, b = random(*left), random(*right, seed=1)
    close(run(a, b), a.astype(np.float64) @ b, 9)


def test_sum_over_nothing_is_zero(built) -> None:
    run = built(lambda emit, a, b: emit(R.matmul(a, b)), ("m", "k"), ("k", "n"))
    assert (run(random(3, 0), random(0, 40)) == np.zeros((3, 40))).all()


def test_inner_loop_is_multiply_adds_on_registers(built) -> None:
    if Machine(16, 32) != Machine.of(_target("x86-64-v4")):
        pytest.skip("LLVM here does not know x86-64-v4")
    w = random(256, 96)
    text = built(
        lambda emit, x: emit(R.matmul(x, relax.const(w))), (128, 256), mcpu="x86-64-v4"
    ).assembly()
    tile = default_tile(Machine(16, 32), 128, 96, 256)
    lines = [line.split() for line in text.splitlines()]
    fused = [words for words in lines if words and words[0].startswith("vfmadd231ps")]
    assert len([words for words in fused if "zmm" in words[-1]]) >= tile.rows * tile.vectors
    assert not [w for w in lines if w and "zmm" in " ".join(w) and "(%rsp)" in " ".join(w)]


def test_arm_code_uses_vector_multiply_adds(built) -> None:
    w = random(64, 48)
    text = built(
        lambda emit, x: emit(R.matmul(x, relax.const(w))), ("n", 64), mcpu="cortex-a76"
    ).assembly()
    assert text.count("fmla") >= 8 * 3


def _target(mcpu: str) -> Any:
    return tvm.target.Target({"kind": "llvm", "mcpu": mcpu})


@pytest.mark.parametrize(
    "machine", [Machine(16, 32), Machine(8, 16), Machine(4, 32), Machine(4, 16)]
)
@pytest.mark.parametrize("rows", [None, 1, 5, 13, 128])
@pytest.mark.parametrize("columns", [None, 1, 16, 48, 384])
def test_tiles_fit_the_registers(machine: Machine, rows: int | None, columns: int | None) -> None:
    tile = default_tile(machine, rows, columns, 384)
    assert tile.rows * tile.vectors + tile.vectors + 1 <= machine.registers
    assert tile.block % tile.rows == 0


class _Fixed(Choices):
    def __init__(self, tile: Tile) -> None:
        self.sizes = tile_sizes(tile)

    def choose(self, site: Site) -> Sizes:
        return self.sizes


@pytest.mark.parametrize("tile", [Tile(1, 1, 4), Tile(3, 2, 9), Tile(5, 4, 20)])
def test_any_tile_gives_the_same_product(tile: Tile) -> None:
    w, x = random(40, 70), random(23, 40, seed=1)
    builder = relax.BlockBuilder()
    v = relax.Var("x", relax.TensorType((23, 40), "float32"))
    with builder.function("main", [v]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(R.matmul(v, relax.const(w))))
        builder.emit_func_output(y)
    module = relax.pipeline.get_pipeline("zero")(builder.get())
    target = _target("x86-64-v3")
    module = schedule_module(module, target, _Fixed(tile))
    machine = relax.VirtualMachine(relax.build(module, target=target), tvm.cpu())
    close(machine["main"](tvm.runtime.tensor(x)).numpy(), x.astype(np.float64) @ w, 40)
