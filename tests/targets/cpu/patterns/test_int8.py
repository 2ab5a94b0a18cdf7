"""int8 layers get an int8 kernel: alone, in chains, with any sizes, on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compressed_graphs import Graph, check, op, target
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerChannel, PerTensor
from fewbits.formats.parse import parse_format
from fewbits.ops.compressed.activations import fake_quantize_call
from fewbits.ops.compressed.weights import decode_call
from fewbits.passes.rewrite import constant
from tvm import relax

INT8 = parse_format("int8")
PROCESSORS = [("x86-64-v4", "+avx512vnni"), ("x86-64-v4",), ("alderlake",), ("x86-64-v3",),
              ("x86-64",)]  # fmt: skip


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def weight(outputs: int, length: int, granularity: Any = None) -> Any:
    made = compress(
        values(outputs, length, seed=outputs), parse_format("int8-narrow"),
        granularity=granularity or PerChannel(0),
    )  # fmt: skip
    return decode_call(made)


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: "".join(p))
@pytest.mark.parametrize("length", [37, 64])
def test_every_processor_sums_exactly(processor: tuple[str, ...], length: int) -> None:
    graph = Graph(x=("N", length))
    quantized = graph(fake_quantize_call(graph.parameters[0], INT8, "token"))
    module = graph.module(graph.linear(quantized, weight(51, length), "y"))
    samples = [{"x": values(rows, length)} for rows in (1, 13, 70)]
    assert set(check(module, *samples, made=target(*processor))) == {"y"}


@pytest.mark.parametrize("granularity", [PerChannel(0), PerTensor()])
@pytest.mark.parametrize("scale", ["token", "tensor", "static"])
def test_scales(granularity: Any, scale: str) -> None:
    graph = Graph(x=(2, 5, 40))
    static = relax.const(np.float32(0.02), "float32") if scale == "static" else None
    kind = "tensor" if scale == "static" else scale
    quantized = graph(fake_quantize_call(graph.parameters[0], INT8, kind, static))
    module = graph.module(graph.linear(quantized, weight(32, 40, granularity), "y"))
    assert set(check(module, {"x": values(2, 5, 40)})) == {"y"}


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_chains_are_one_kernel(activation: str) -> None:
    graph = Graph(x=("N", "T", 48))
    x = graph.parameters[0]
    quantized = graph(fake_quantize_call(x, INT8, "token"))
    for name, outputs in (("first", 96), ("second", 48)):
        product = graph.linear(quantized, weight(outputs, int(quantized.ty.shape.values[-1])), name)
        summed = graph(op.add(product, constant(values(outputs, seed=3))))
        last = graph(getattr(op.nn, activation)(summed)) if name == "first" else summed
        quantized = graph(fake_quantize_call(last, INT8, "token")) if name == "first" else last
    module = graph.module(graph(op.add(x, quantized)))
    assert set(check(module, {"x": values(2, 9, 48)})) == {"first", "second"}


def test_a_shared_input_is_quantized_once() -> None:
    from fewbits.targets.cpu.patterns import select_kernels

    graph = Graph(x=("N", 48))
    quantized = graph(fake_quantize_call(graph.parameters[0], INT8, "token"))
    outputs = [graph.linear(quantized, weight(48, 48), name) for name in "qkv"]
    module = graph.module(*outputs)
    selected = select_kernels(module, target("x86-64-v3"))
    calls = [b.value for b in selected["main"].body.blocks[0].bindings]
    called = [c.args[0].name_hint for c in calls if isinstance(c, relax.Call) and len(c.args) > 1]
    assert sorted(called) == ["int8_linear"] * 3 + ["quantize_rows"]
    check(module, {"x": values(7, 48)})


def test_values_read_twice_are_kept() -> None:
    graph = Graph(x=(4, 16))
    quantized = graph(fake_quantize_call(graph.parameters[0], INT8, "token"))
    product = graph.linear(quantized, weight(16, 16), "y")
    module = graph.module(graph(op.nn.relu(product)), graph(op.negative(product)))
    assert set(check(module, {"x": values(4, 16)})) == {"y"}


def test_extremes() -> None:
    x = values(3, 32)
    x[0] = 0
    x[1] = 1e30
    x[2, 0] = -1e-30
    graph = Graph(x=(3, 32))
    quantized = graph(fake_quantize_call(graph.parameters[0], INT8, "token"))
    check(graph.module(graph.linear(quantized, weight(16, 32), "y")), {"x": x})


@pytest.mark.parametrize("scale", ["token", "tensor", "static"])
@pytest.mark.parametrize("length", [37, 64])
def test_smoothing_factors_belong_to_the_rounding(scale: str, length: int) -> None:
    graph = Graph(x=("N", length))
    factors = constant(np.exp(values(length)))
    smoothed = graph(op.multiply(factors, graph.parameters[0]))
    static = relax.const(np.float32(0.02), "float32") if scale == "static" else None
    kind = "tensor" if scale == "static" else scale
    quantized = graph(fake_quantize_call(smoothed, INT8, kind, static))
    module = graph.module(graph.linear(quantized, weight(32, length), "y"))
    assert set(check(module, {"x": values(5, length)})) == {"y"}
