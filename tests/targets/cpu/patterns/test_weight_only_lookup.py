"""Binary-coded layers: few rows look signs up in tables of sums, and give the decoded product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compressed_graphs import Graph, check, target
from fewbits.formats.compress import compress
from fewbits.formats.compressed import CompressedTensor
from fewbits.formats.granularity import Granularity, PerChannel, PerGroup
from fewbits.formats.parse import parse_format
from fewbits.ops.compressed.weights import decode_call

PROCESSORS = {"avx512": ("x86-64-v4",), "avx2": ("x86-64-v3",)}


def coded(
    bits: int, shape: tuple[int, int], granularity: Granularity, offsets: bool = False
) -> CompressedTensor:
    random = np.random.default_rng(bits)
    array = random.normal(size=shape).astype(np.float32)
    tensor = compress(
        array, parse_format(f"bcq{bits}"), granularity=granularity, scale_storage="float16"
    )
    if not offsets:
        return tensor
    added = random.normal(size=granularity.scale_shape(shape)).astype(np.float32)
    return CompressedTensor.from_codes(
        tensor.codes(), tensor.number_format, granularity, tensor.scales, offsets=added
    )


def checked(tensor: CompressedTensor, rows: tuple[int, ...], processor: str, **how: Any) -> None:
    """All numbers of rows at once, each as a parameter of its own."""
    graph = Graph(**{f"x{n}": (n, tensor.shape[1]) for n in rows})
    weight = decode_call(tensor)
    module = graph.module(*(graph.linear(p, weight, p.name + "'") for p in graph.parameters))
    scale = how.get("scale", 1.0)
    random = np.random.default_rng(0)
    x = {
        f"x{n}": (scale * random.normal(size=(n, tensor.shape[1]))).astype(np.float32) for n in rows
    }
    check(module, x, made=target(*PROCESSORS[processor]))


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_every_number_of_planes_and_rows(bits: int, processor: str) -> None:
    checked(coded(bits, (40, 96), PerGroup(32)), (1, 2, 3, 4, 5), processor)


@pytest.mark.parametrize(
    ("shape", "granularity"),
    [
        ((1, 1), PerChannel(0)),
        ((20, 3), PerChannel(0)),
        ((17, 45), PerChannel(0)),
        ((33, 300), PerGroup(128)),
        ((20, 70), PerGroup(64)),
        ((20, 96), PerGroup(24)),
    ],
    ids=str,
)
def test_shapes_that_divide_nothing(shape: tuple[int, int], granularity: Granularity) -> None:
    checked(coded(3, shape, granularity), (1, 3), "avx512")


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("granularity", [PerChannel(0), PerGroup(32)], ids=str)
def test_offsets(granularity: Granularity, bits: int) -> None:
    checked(coded(bits, (20, 100), granularity, offsets=True), (1, 2, 8), "avx512")


def test_rows_of_zeros_are_zero() -> None:
    checked(coded(2, (20, 64), PerGroup(32), offsets=True), (1, 2), "avx512", scale=0.0)


def test_numbers_of_rows_that_are_known_at_run_time_only() -> None:
    tensor = coded(3, (40, 64), PerGroup(32))
    graph = Graph(x=("N", 64))
    module = graph.module(graph.linear(graph.parameters[0], decode_call(tensor), "y"))
    random = np.random.default_rng(1)
    samples = [{"x": random.normal(size=(rows, 64)).astype(np.float32)} for rows in (1, 2, 3, 4, 7)]
    check(module, *samples, made=target(*PROCESSORS["avx512"]))
