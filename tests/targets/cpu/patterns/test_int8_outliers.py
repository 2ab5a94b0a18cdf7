"""LLM.int8's two halves: int8 for most columns, floats for those that hold outliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compressed_graphs import Graph, check, op
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerChannel
from fewbits.formats.parse import parse_format
from fewbits.formats.plain import PlainTensor
from fewbits.ops.compressed.activations import fake_quantize_call, outlier_columns_call
from fewbits.ops.compressed.weights import decode_call
from fewbits.passes.rewrite import constant
from tvm import relax

INT8 = parse_format("int8")


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_outliers(*shape: int) -> np.ndarray:
    x = values(*shape, seed=5)
    x[..., 7] *= 40
    x[..., 30] *= 60
    return x


def int8_weight(w: np.ndarray) -> Any:
    return decode_call(compress(w, parse_format("int8-narrow"), granularity=PerChannel(0)))


@pytest.mark.parametrize("kind", ["int8", "float16"])
@pytest.mark.parametrize("threshold", [6.0, 1e9])
def test_dynamic_outliers(kind: str, threshold: float) -> None:
    w = values(40, 48)
    weight = int8_weight(w) if kind == "int8" else decode_call(PlainTensor.from_array(w, "float16"))
    graph = Graph(x=("N", 48))
    x = graph.parameters[0]
    mask = graph(outlier_columns_call(x, threshold, 8))
    one = relax.const(np.float32(1), "float32")
    rest = graph(op.multiply(x, graph(op.subtract(one, mask))))
    codes = graph(fake_quantize_call(rest, INT8, "token"))
    inner = graph.linear(codes, int8_weight(w), "inner")
    outer = graph.linear(graph(op.multiply(x, mask)), weight, "outer")
    both = graph(op.add(inner, outer))
    module = graph.module(graph(op.nn.relu(graph(op.add(both, constant(values(40, seed=2)))))))
    notes = check(module, {"x": with_outliers(70, 48)})
    assert notes["inner"].startswith("int8") and notes["outer"].startswith("outlier columns")


def test_static_outliers() -> None:
    w, columns = values(40, 48), [7, 30]
    keep = np.ones(48, np.float32)
    keep[columns] = 0
    graph = Graph(x=("N", 48))
    x = graph.parameters[0]
    codes = graph(fake_quantize_call(graph(op.multiply(x, constant(keep))), INT8, "token"))
    inner = graph.linear(codes, int8_weight(w), "inner")
    taken = graph(op.take(x, constant(np.array(columns, np.int64)), axis=-1))
    outer = decode_call(PlainTensor.from_array(w[:, columns], "float16"))
    module = graph.module(graph(op.add(inner, graph.linear(taken, outer, "outer"))))
    assert set(check(module, {"x": with_outliers(9, 48)})) == {"inner", "outer"}
