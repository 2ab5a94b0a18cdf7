"""Attention of every shape gets one kernel, or none where something else reads its insides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compressed_graphs import host, target
from fewbits.targets.cpu.pipeline import choose_kernels, lower_to_tir, make_executable
from tvm import cpu, ir, relax, runtime, tirx
from tvm.runtime.vm import VirtualMachine

HEADS, SIZE = 3, 32
_relax: Any = relax


class Attention:
    """A module ``main(q, k, v, [mask])``; tokens before heads, or heads first."""

    def __init__(
        self,
        *,
        mask: tuple[int | str, ...] | None = None,
        tokens_first: bool = True,
        sizes: tuple[int | str, int | str, int | str] = ("N", "T", "S"),
        size: int = SIZE,
        factor: float = 0.25,
        divide: bool = False,
        also: str | None = None,
    ) -> None:
        self.tokens_first, self.factor, self.size = tokens_first, factor, size
        symbols: dict[str, Any] = {}

        def extent(value: int | str) -> Any:
            if isinstance(value, int):
                return value
            return symbols.setdefault(value, tirx.Var(value, "int64"))

        n, t, s = sizes

        def tensor(name: str, *shape: int | str) -> relax.Var:
            return relax.Var(name, _relax.TensorType([extent(v) for v in shape], "float32"))

        def heads(name: str, count: int | str) -> relax.Var:
            pair = (count, HEADS) if tokens_first else (HEADS, count)
            return tensor(name, n, *pair, size)

        parameters = [heads("q", t), heads("k", s), heads("v", s)]
        if mask is not None:
            parameters.append(tensor("mask", *mask))
        builder: Any = relax.BlockBuilder()
        with builder.function("main", parameters):
            with builder.dataflow():
                q, k, v = parameters[:3]
                order = [0, 2, 1, 3]
                if tokens_first:
                    q, v = (builder.emit(relax.op.permute_dims(x, order)) for x in (q, v))
                    k = builder.emit(relax.op.permute_dims(k, [0, 2, 3, 1]))
                else:
                    k = builder.emit(relax.op.permute_dims(k, [0, 1, 3, 2]))
                scores = builder.emit(relax.op.matmul(q, k))
                number = relax.const(1 / factor if divide else factor, "float32")
                scale = relax.op.divide if divide else relax.op.multiply
                if factor != 1.0:
                    scores = builder.emit(scale(scores, number))
                if mask is not None:
                    scores = builder.emit(relax.op.add(parameters[3], scores))
                weights = builder.emit(relax.op.nn.softmax(scores, axis=-1))
                y = builder.emit(relax.op.matmul(weights, v))
                if tokens_first:
                    y = builder.emit(relax.op.permute_dims(y, order))
                results = [builder.emit_output(y)]
                if also is not None:
                    other = {"scores": scores, "weights": weights}[also]
                    results.append(builder.emit_output(relax.op.negative(other)))
            builder.emit_func_output(results if also is not None else results[0])
        names = {"input_names": [p.name for p in parameters], "output_names": ["y"]}
        self.module = ir.IRModule({"main": builder.get()["main"].with_attrs(names)})

    def kernels(self, made: Any = None) -> set[str]:
        chosen = choose_kernels(self.module, made or host())
        return {v.name_hint for v in chosen.functions if v.name_hint != "main"}

    def machine(self, made: Any = None) -> Any:
        made = made or host()
        lowered = lower_to_tir(choose_kernels(self.module, made), made)
        return VirtualMachine(make_executable(lowered, made), cpu())["main"]

    def reference(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: Any) -> np.ndarray:
        if self.tokens_first:
            q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        q, k, v = (x.astype(np.float64) for x in (q, k, v))
        scores = q @ k.transpose(0, 1, 3, 2) * self.factor
        for one in mask:
            scores = scores + one
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = scores / scores.sum(-1, keepdims=True) @ v
        return y.transpose(0, 2, 1, 3) if self.tokens_first else y

    def check(self, run: Any, n: int, t: int, s: int, *mask: np.ndarray) -> None:
        generator = np.random.default_rng(n + t + s)

        def heads(count: int) -> np.ndarray:
            pair = (count, HEADS) if self.tokens_first else (HEADS, count)
            return generator.standard_normal((n, *pair, self.size)).astype(np.float32)

        arrays = (heads(t), heads(s), heads(s), *mask)
        y = run(*(runtime.tensor(array) for array in arrays)).numpy()
        np.testing.assert_allclose(y, self.reference(*arrays), rtol=0, atol=2e-6)


SIZES = [(1, 1, 1), (2, 5, 33), (1, 9, 7), (1, 130, 31), (2, 16, 64), (1, 1, 200)]


@pytest.mark.parametrize("tokens_first", [True, False])
def test_any_sizes(tokens_first: bool) -> None:
    made = Attention(tokens_first=tokens_first)
    assert made.kernels() == {"attention"}
    run = made.machine()
    for sizes in SIZES:
        made.check(run, *sizes)


@pytest.mark.parametrize(
    "shape", [("N", 1, 1, "S"), (1, 1, "T", "S"), ("T", "S"), ("N", HEADS, "T", "S")]
)
def test_masks(shape: tuple[int | str, ...]) -> None:
    made = Attention(mask=shape, divide=True)
    assert made.kernels() == {"attention"}
    run = made.machine()
    for n, t, s in ((2, 11, 33), (1, 3, 40)):
        values = {"N": n, "T": t, "S": s}
        extents = [x if isinstance(x, int) else values[x] for x in shape]
        hidden = np.random.default_rng(s).random(extents) < 0.4
        hidden[..., 0] = False
        made.check(run, n, t, s, np.where(hidden, np.float32(-1e9), np.float32(0)))
        made.check(run, n, t, s, np.where(hidden, -np.inf, 0).astype(np.float32))


def test_all_scores_hidden_alike_are_equal_weights() -> None:
    made = Attention(mask=(1, 1, 1, "S"), factor=1.0)
    lowest = np.full((1, 1, 1, 21), np.finfo(np.float32).min)
    made.check(made.machine(), 1, 4, 21, lowest)


@pytest.mark.parametrize("processor", [("x86-64-v4",), ("x86-64-v3",), ("x86-64",)], ids=str)
def test_vectors_of_every_processor(processor: tuple[str, ...]) -> None:
    made = Attention(sizes=(2, 13, 37), mask=(2, 1, 1, 37))
    assert made.kernels(target(*processor)) == {"attention"}
    made.check(made.machine(target(*processor)), 2, 13, 37, np.zeros((2, 1, 1, 37), np.float32))


@pytest.mark.parametrize("also", ["scores", "weights"])
def test_none_where_something_else_reads_between(also: str) -> None:
    assert Attention(also=also).kernels() == set()


def test_none_where_rows_are_no_whole_vectors() -> None:
    made = Attention(size=24, sizes=(1, 6, 6))
    assert made.kernels(target("x86-64-v4")) == set()
    made.check(made.machine(), 1, 6, 6)
