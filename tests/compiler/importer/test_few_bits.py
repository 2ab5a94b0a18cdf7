"""Few-bit weights of ONNX models keep their bits, and compute what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fewbits.compiler.exporter import export_onnx
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerGroup
from fewbits.formats.matmul_nbits import to_matmul_nbits
from fewbits.formats.parse import parse_format
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.canonicalize import Canonicalize
from fewbits.passes.layers import find_layers
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1, 5, 64)).astype(np.float32)


def model_of(nodes: list[Any], constants: list[Any], opset: int = 21) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, 24])],
        initializer=constants,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def check(model: onnx.ModelProto, bits: int, name: str) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    wanted = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": X})
    module = import_onnx(model).module
    module = Canonicalize().apply(module, PassContext())
    got = Evaluator(module)({"x": torch.from_numpy(X)})["y"].numpy()
    np.testing.assert_allclose(got, wanted[0], rtol=1e-5, atol=2e-5)
    (layer,) = find_layers(module)
    assert layer.tensor is not None
    assert layer.tensor.number_format.name == name
    assert layer.tensor.code_bits == 64 * 24 * bits
    assert layer.shape == (24, 64)
    again = import_onnx(export_onnx(module)).module
    np.testing.assert_allclose(
        Evaluator(again)({"x": torch.from_numpy(X)})["y"].numpy(), got, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("affine", [False, True])
def test_blocked_four_bits(axis: int, affine: bool) -> None:
    shape = (64, 24) if axis == 0 else (24, 64)
    dtype = ml_dtypes.uint4 if affine else ml_dtypes.int4
    codes = RNG.integers(0, 16, shape) if affine else RNG.integers(-8, 8, shape)
    blocks = (4, 24) if axis == 0 else (24, 4)
    scales = RNG.uniform(0.01, 0.1, blocks).astype(np.float16).astype(np.float32)
    constants = [
        numpy_helper.from_array(codes.astype(dtype), "w"),
        numpy_helper.from_array(scales, "s"),
    ]
    inputs = ["w", "s"]
    if affine:
        zeros = RNG.integers(0, 16, blocks).astype(dtype)
        constants.append(numpy_helper.from_array(zeros, "z"))
        inputs.append("z")
    nodes = [helper.make_node("DequantizeLinear", inputs, ["d"], axis=axis, block_size=16)]
    if axis == 1:
        nodes.append(helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]))
    nodes.append(helper.make_node("MatMul", ["x", "t" if axis == 1 else "d"], ["y"]))
    check(model_of(nodes, constants), 4, "uint4" if affine else "int4")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(ml_dtypes.float8_e4m3fn, "fp8_e4m3fn"), (ml_dtypes.float8_e5m2, "fp8_e5m2")],
)
def test_fp8_per_channel(dtype: Any, name: str) -> None:
    codes = RNG.normal(size=(64, 24)).astype(np.float32).astype(dtype)
    constants = [
        numpy_helper.from_array(codes, "w"),
        numpy_helper.from_array(RNG.uniform(0.1, 1, 24).astype(np.float32), "s"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    check(model_of(nodes, constants), 8, name)


@pytest.mark.parametrize("name", ["int4", "uint4", "int8"])
@pytest.mark.parametrize("group", [16, 32])
def test_matmul_nbits(name: str, group: int) -> None:
    weight = RNG.normal(size=(24, 64)).astype(np.float32)
    method = "affine" if name.startswith("u") else None
    tensor = compress(weight, parse_format(name), granularity=PerGroup(group), method=method)
    packed = to_matmul_nbits(tensor)
    constants = [
        numpy_helper.from_array(packed.weight, "w"),
        numpy_helper.from_array(packed.scales, "s"),
    ]
    inputs = ["x", "w", "s"]
    if packed.zero_points is not None:
        constants.append(numpy_helper.from_array(packed.zero_points, "z"))
        inputs.append("z")
    node = helper.make_node(
        "MatMulNBits", inputs, ["y"], domain="com.microsoft",
        N=24, K=64, bits=packed.bits, block_size=group, accuracy_level=1,
    )  # fmt: skip
    check(model_of([node], constants), packed.bits, name)


def test_contradicting_sizes_are_refused_at_the_node() -> None:
    constants = [
        numpy_helper.from_array(np.zeros((24, 2, 16), np.uint8), "w"),
        numpy_helper.from_array(np.ones(7, np.float32), "s"),
    ]
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], "broken", domain="com.microsoft",
        N=24, K=64, bits=4, block_size=32,
    )  # fmt: skip
    with pytest.raises(FewbitsError) as error:
        import_onnx(model_of([node], constants))
    assert "broken" in str(error.value.where)
