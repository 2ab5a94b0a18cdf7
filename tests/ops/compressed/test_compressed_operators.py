"""The compressed form's operators mean what the formats say, alone, in modules and under vmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock, PerChannel, PerGroup
from fewbits.formats.parse import parse_format
from fewbits.formats.sparsity import parse_sparsity
from fewbits.ops.compressed.activations import fake_quantize_call, outlier_columns_call
from fewbits.ops.compressed.rounding import round_to
from fewbits.ops.compressed.weights import decode_call, is_decode, tensor_of
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.rewrite import assemble
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

FORMATS = ["int8", "int4-narrow", "uint4", "fp8_e4m3fn", "fp8_e5m2", "fp4_e2m1", "nf4", "flint4",
           "pot4", "dynamic8"]  # fmt: skip


def module_of(value: relax.Expr, *parameters: relax.Var) -> Any:
    """A module that returns one expression."""
    normal = relax.BlockBuilder().normalize(value)
    var = relax.DataflowVar("y", normal.ty)
    names = {"input_names": [p.name for p in parameters], "output_names": ["y"]}
    return assemble(parameters, [(var, normal)], var, names)


@pytest.mark.parametrize("name", FORMATS)
@given(values=st.lists(st.floats(-600, 600, width=32), min_size=1, max_size=30))
def test_rounding_equals_the_format(name: str, values: list[float]) -> None:
    number_format = parse_format(name)
    levels = number_format.levels().astype(np.float32)
    ties = (levels[:-1] + levels[1:]) / 2
    x = np.concatenate([np.array(values, np.float32), levels, ties])
    rounded = round_to(number_format, torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(rounded, number_format.round(x))


@pytest.mark.parametrize(
    ("granularity", "sparsity", "storage"),
    [
        (PerChannel(0), "dense", "float32"),
        (PerGroup(16), "dense", "float16"),
        (PerGroup(24), "2:4", "bfloat16"),
        (PerBlock(64), "bitmap", "double"),
        (PerGroup(32), "rows", "e8m0"),
        (PerChannel(0), "8x1", "float32"),
    ],
)
@pytest.mark.parametrize("name", ["int4", "nf4", "bcq3", "fp8_e4m3fn"])
def test_decode_stands_for_its_tensor(
    name: str, granularity: Any, sparsity: str, storage: Any
) -> None:
    x = np.random.default_rng(0).normal(size=(12, 48)).astype(np.float32)
    rule = parse_sparsity(sparsity)
    mask = None
    if sparsity != "dense":
        mask = np.tile([True, False, False, True], (12, 12))
    tensor = compress(
        x, parse_format(name), granularity=granularity, sparsity=rule, mask=mask,
        scale_storage=storage,
    )  # fmt: skip
    call = decode_call(tensor)
    assert is_decode(call)
    again = tensor_of(call)
    np.testing.assert_array_equal(again.decode(), tensor.decode())
    assert again.total_bits == tensor.total_bits
    y = Evaluator(module_of(call))({})["y"]
    np.testing.assert_array_equal(y.numpy(), tensor.decode())


def test_affine_weights_keep_their_zero_points() -> None:
    x = np.random.default_rng(1).uniform(-1, 3, size=(4, 32)).astype(np.float32)
    tensor = compress(x, parse_format("uint4"), granularity=PerGroup(16), method="affine")
    np.testing.assert_array_equal(tensor_of(decode_call(tensor)).decode(), tensor.decode())


def run(call_of: Any, x: np.ndarray) -> np.ndarray:
    parameter = relax.Var("x", relax.TensorType(x.shape, "float32"))
    return Evaluator(module_of(call_of(parameter), parameter))({"x": torch.from_numpy(x)})[
        "y"
    ].numpy()


def test_dynamic_token_scales_are_per_row() -> None:
    x = np.array([[1.0, -254.0, 3.0], [0.0, 0.0, 0.0], [0.1, 0.2, 12.7]], np.float32)
    y = run(lambda v: fake_quantize_call(v, parse_format("int8-narrow")), x)
    np.testing.assert_allclose(y, [[0, -254, 4], [0, 0, 0], [0.1, 0.2, 12.7]], atol=1e-6)


def test_static_scale_saturates() -> None:
    x = np.array([[0.26, 1000.0, -1000.0]], np.float32)
    scale = relax.const(np.float32(0.5), "float32")
    y = run(lambda v: fake_quantize_call(v, parse_format("int8"), "tensor", scale), x)
    np.testing.assert_array_equal(y, [[0.5, 63.5, -64.0]])


def test_static_scale_per_token_is_refused() -> None:
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with pytest.raises(FewbitsError, match="static scale"):
        fake_quantize_call(x, parse_format("int8"), "token", relax.const(1.0, "float32"))


@pytest.mark.parametrize(
    ("threshold", "capacity", "wanted"),
    [(6.0, 2, [0, 1, 1, 0]), (6.0, 1, [1, 1, 1, 1]), (0.0, 4, [0, 0, 0, 0]), (50.0, 4, [0] * 4)],
)
def test_outlier_columns(threshold: float, capacity: int, wanted: list[int]) -> None:
    x = np.array([[[1, 6, 0, 2], [5.9, 0, -8, 0]]], np.float32)
    y = run(lambda v: outlier_columns_call(v, threshold, capacity), x)
    np.testing.assert_array_equal(y, np.array(wanted, np.float32))


def test_activations_run_under_vmap() -> None:
    x = np.random.default_rng(2).normal(size=(5, 1, 7, 16)).astype(np.float32)
    for name in ("int8", "fp8_e4m3fn"):
        parameter = relax.Var("x", relax.TensorType((1, 7, 16), "float32"))
        call = fake_quantize_call(parameter, parse_format(name), "tensor")
        (batch,) = Evaluator(module_of(call, parameter)).batched({"x": x}, chunk=8)
        alone = run(lambda v, n=name: fake_quantize_call(v, parse_format(n), "tensor"), x[3])
        np.testing.assert_array_equal(batch["y"][3].numpy(), alone)
