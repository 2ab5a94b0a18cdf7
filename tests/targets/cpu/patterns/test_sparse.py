"""Sparse layers multiply only by what is stored: n:m and unstructured, floats and few-bit codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compressed_graphs import Graph, check, target
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerChannel, PerGroup
from fewbits.formats.parse import parse_format
from fewbits.formats.plain import PlainTensor
from fewbits.formats.sparsity import NofM, parse_sparsity
from fewbits.ops.compressed.weights import decode_call

SHAPE = (20, 96)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensor_of(name: str, sparsity: str) -> Any:
    """A pruned tensor whose masks are random where the rule leaves a choice."""
    w = values(*SHAPE)
    rule = parse_sparsity(sparsity)
    if isinstance(rule, NofM):
        order = np.random.default_rng(1).permuted(
            np.tile(np.arange(rule.m), (w.size // rule.m, 1)), axis=1
        )
        mask = (order < rule.n).reshape(SHAPE)
    else:
        mask = np.random.default_rng(1).random(SHAPE) < 0.4
        mask[3] = False
    if name.startswith("float") or name == "bfloat16":
        return PlainTensor.from_array(w, name, rule, mask)  # pyright: ignore[reportArgumentType]
    granularity = PerGroup(32) if name == "int4" else PerChannel(0)
    return compress(
        w, parse_format(name), granularity=granularity, sparsity=rule, mask=mask,
        scale_storage="float16",
    )  # fmt: skip


@pytest.mark.parametrize("processor", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize(
    ("name", "sparsity"),
    [("float16", "2:4"), ("float32", "4:8"), ("int4", "2:4"), ("int8", "1:4"), ("nf4", "1:2")],
)
def test_groups(name: str, sparsity: str, processor: str) -> None:
    graph = Graph(x=("N", 96))
    module = graph.module(
        graph.linear(graph.parameters[0], decode_call(tensor_of(name, sparsity)), "y")
    )
    samples = [{"x": values(rows, 96, seed=1)} for rows in (1, 19)]
    notes = check(module, *samples, made=target(processor))
    assert notes == {"y": f"sparse {sparsity} {name}"}


@pytest.mark.parametrize("sparsity", ["bitmap", "rows"])
@pytest.mark.parametrize("name", ["float32", "float16", "int4", "int8", "int3"])
def test_any_mask(name: str, sparsity: str) -> None:
    graph = Graph(x=("N", 96), few=(3, 96))
    weight = decode_call(tensor_of(name, sparsity))
    module = graph.module(*(graph.linear(p, weight, p.name + "'") for p in graph.parameters))
    notes = check(module, {"x": values(67, 96, seed=1), "few": values(3, 96, seed=2)})
    kernel = f"sparse {sparsity} {name}"
    assert notes == {"x'": kernel, "few'": kernel}
