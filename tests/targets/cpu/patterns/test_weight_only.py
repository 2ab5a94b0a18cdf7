"""Weight-only layers decode in their kernels: every format, granularity, storage and processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compressed_graphs import Graph, check, op, target
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from fewbits.formats.parse import parse_format
from fewbits.formats.plain import PlainTensor
from fewbits.ops.compressed.weights import decode_call
from fewbits.passes.rewrite import constant

PROCESSORS = {"avx512": ("x86-64-v4",), "avx2": ("x86-64-v3",), "sse": ("x86-64",)}
CASES: list[tuple[str, Any, str, str | None, tuple[int, int]]] = [
    ("int4", PerGroup(32), "float32", None, (20, 96)),
    ("uint4", PerGroup(32), "float16", "affine", (20, 96)),
    ("nf4", PerBlock(32), "double", None, (20, 96)),
    ("fp4_e2m1", PerGroup(16), "e8m0", None, (33, 64)),
    ("int3", PerGroup(24), "bfloat16", None, (20, 72)),
    ("bcq3", PerGroup(32), "float16", None, (20, 96)),
    ("bcq2", PerChannel(0), "float32", None, (20, 50)),
    ("fp8_e4m3fn", PerChannel(0), "float32", None, (20, 200)),
    ("fp8_e5m2", PerGroup(64), "float32", None, (20, 150)),
    ("fp6_e3m2", PerGroup(16), "float32", None, (20, 48)),
    ("flint4", PerTensor(), "float32", None, (20, 33)),
    ("dynamic8", PerTensor(), "double", None, (20, 33)),
    ("int5", PerGroup(40), "float32", "affine", (20, 96)),
    ("uint3", PerGroup(8), "float32", "affine", (20, 88)),
    ("int7", PerGroup(16), "float32", "affine", (20, 97)),
    ("int6", PerTensor(), "float32", "affine", (20, 40)),
    ("int4", PerGroup(100), "float32", None, (20, 333)),
    ("int8", PerGroup(256), "float32", None, (20, 600)),
    ("int2", PerChannel(0), "float32", None, (20, 300)),
]


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


#: Every format where this machine is best; a format of each way of decoding elsewhere.
EVERYWHERE = [CASES[i] for i in (1, 2, 4, 7, 9)]
RUNS = [(c, "avx512") for c in CASES] + [(c, p) for p in ("avx2", "sse") for c in EVERYWHERE]


@pytest.mark.parametrize(
    ("case", "processor"), RUNS, ids=lambda v: v if isinstance(v, str) else v[0]
)
def test_every_format(case: Any, processor: str) -> None:
    name, granularity, storage, method, shape = case
    tensor = compress(
        values(*shape), parse_format(name), granularity=granularity, scale_storage=storage,
        method=method,
    )  # fmt: skip
    graph = Graph(x=("N", shape[1]), one=(1, shape[1]))
    weight = decode_call(tensor)
    module = graph.module(*(graph.linear(p, weight, p.name + "'") for p in graph.parameters))
    x = {"x": values(9, shape[1], seed=1), "one": values(1, shape[1], seed=2)}
    notes = check(module, x, made=target(*PROCESSORS[processor]))
    assert notes == {"x'": f"weight-only {name}", "one'": f"weight-only {name}"}


def test_any_number_of_rows() -> None:
    tensor = compress(values(80, 160), parse_format("nf4"), granularity=PerGroup(32))
    graph = Graph(x=("N", "T", 160))
    summed = graph(op.add(graph.linear(graph.parameters[0], decode_call(tensor), "y"),
                          constant(values(80, seed=4))))  # fmt: skip
    module = graph.module(graph(op.nn.gelu(summed)))
    samples = [{"x": values(1, rows, 160)} for rows in (1, 2, 8, 64, 67, 150)]
    assert set(check(module, *samples)) == {"y"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_floats_are_widened_in_the_loop(dtype: Any) -> None:
    weight = decode_call(PlainTensor.from_array(values(40, 37), dtype))
    graph = Graph(x=("N", 37))
    module = graph.module(graph.linear(graph.parameters[0], weight, "y"))
    samples = [{"x": values(rows, 37, seed=1)} for rows in (1, 10)]
    assert set(check(module, *samples)) == {"y"}


def test_groups_across_rows_stay_with_the_operators() -> None:
    tensor = compress(values(8, 20), parse_format("int4"), granularity=PerBlock(16))
    graph = Graph(x=(3, 20))
    module = graph.module(graph.linear(graph.parameters[0], decode_call(tensor), "y"))
    assert check(module, {"x": values(3, 20)}) == {}
