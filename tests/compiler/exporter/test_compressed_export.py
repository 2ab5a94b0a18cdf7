"""Compressed modules written as ONNX compute in onnxruntime what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fewbits.compiler.exporter import export_onnx
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from fewbits.formats.parse import parse_format
from fewbits.formats.sparsity import parse_sparsity
from fewbits.ops.compressed.activations import fake_quantize_call, outlier_columns_call
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.layers import Layer, Replacement, replace_layers
from fewbits.passes.rewrite import assemble
from onnx import numpy_helper, parser
from tvm import relax

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,5,64] x, float[1,4,6,6] image) => (float[1,5,24] y, float[1,8,4,4] c)
<float[64,24] w, float[8,4,3,3] wc>
{
  y = MatMul(x, w)
  c = Conv(image, wc)
}
"""


@pytest.fixture(scope="module")
def module() -> Any:
    model = parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return import_onnx(model).module


def check_against_onnxruntime(
    module: Any, inputs: dict[str, np.ndarray], opset: int = 21, tolerance: float = 2e-5
) -> onnx.ModelProto:
    model = export_onnx(module, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    # By default onnxruntime rounds activations to int8 where it fuses weights of int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    got = session.run(None, inputs)
    wanted = Evaluator(module)({k: torch.from_numpy(v) for k, v in inputs.items()})
    for array, (name, value) in zip(got, wanted.items(), strict=True):
        np.testing.assert_allclose(array, value.numpy(), rtol=1e-5, atol=tolerance, err_msg=name)
    return model


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=(1, 5, 64)).astype(np.float32),
        "image": rng.normal(size=(1, 4, 6, 6)).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("name", "granularity", "storage", "method"),
    [
        ("int8-narrow", PerChannel(0), "float32", None),
        ("int8", PerTensor(), "float32", None),
        ("int4", PerGroup(16), "float16", None),
        ("uint4", PerGroup(32), "float32", "affine"),
        ("int4", PerGroup(48), "float32", None),
        ("nf4", PerGroup(32), "float16", None),
        ("nf4", PerBlock(64), "double", None),
        ("int3", PerGroup(8), "bfloat16", None),
        ("uint3", PerGroup(8), "float32", "affine"),
        ("fp8_e4m3fn", PerChannel(0), "float32", None),
        ("fp8_e5m2", PerGroup(16), "float32", None),
        ("fp4_e2m1", PerGroup(16), "e8m0", None),
        ("dynamic8", PerChannel(0), "float32", None),
    ],
)
def test_weights(module: Any, name: str, granularity: Any, storage: Any, method: Any) -> None:
    def shrink(layer: Layer) -> Replacement | None:
        if layer.kind == "convolution" and not isinstance(granularity, PerChannel | PerTensor):
            return None
        return Replacement(
            compress(
                layer.weight,
                parse_format(name),
                granularity=granularity,
                method=method,
                scale_storage=storage,
            )
        )

    check_against_onnxruntime(replace_layers(module, shrink), inputs())


@pytest.mark.parametrize("opset", [13, 17, 19, 23])
def test_older_opsets_say_blocks_with_a_table(module: Any, opset: int) -> None:
    def shrink(layer: Layer) -> Replacement | None:
        if layer.kind != "linear":
            return None
        return Replacement(compress(layer.weight, parse_format("int4"), granularity=PerGroup(16)))

    check_against_onnxruntime(replace_layers(module, shrink), inputs(), opset)


@pytest.mark.parametrize(("name", "method"), [("int8", None), ("uint4", "affine"), ("nf4", None)])
def test_sparse_weights_keep_their_zeros(module: Any, name: str, method: Any) -> None:
    mask = np.tile([True, False, False, True], (24, 16))

    def shrink(layer: Layer) -> Replacement | None:
        if layer.kind != "linear":
            return None
        tensor = compress(
            layer.weight, parse_format(name), granularity=PerGroup(32), method=method,
            sparsity=parse_sparsity("2:4"), mask=mask,
        )  # fmt: skip
        return Replacement(tensor)

    check_against_onnxruntime(replace_layers(module, shrink), inputs())


def test_binary_coding_is_refused_with_the_layer(module: Any) -> None:
    def shrink(layer: Layer) -> Replacement | None:
        tensor = compress(layer.matrix, parse_format("bcq3"), granularity=PerGroup(32))
        return Replacement(tensor) if layer.kind == "linear" else None

    with pytest.raises(FewbitsError, match="safetensors"):
        export_onnx(replace_layers(module, shrink))


def of(call_of: Any, shape: tuple[int, ...]) -> Any:
    parameter = relax.Var("x", relax.TensorType(shape, "float32"))
    value = relax.BlockBuilder().normalize(call_of(parameter))
    var = relax.DataflowVar("y", value.ty)
    names = {"input_names": ["x"], "output_names": ["y"]}
    return assemble([parameter], [(var, value)], var, names)


@pytest.mark.parametrize("name", ["int8", "int8-narrow", "int4", "fp8_e4m3fn", "fp8_e5m2"])
@pytest.mark.parametrize("kind", ["static", "token", "tensor"])
@pytest.mark.parametrize("opset", [19, 21])
def test_activations(name: str, kind: str, opset: int) -> None:
    def call(x: Any) -> Any:
        scale = relax.const(np.float32(0.05), "float32") if kind == "static" else None
        granularity = "token" if kind == "token" else "tensor"
        return fake_quantize_call(x, parse_format(name), granularity, scale)

    x = np.random.default_rng(2).normal(size=(2, 3, 40)).astype(np.float32) * 4
    x[1, 2] = 0
    check_against_onnxruntime(of(call, x.shape), {"x": x}, opset, tolerance=1e-6)


@pytest.mark.parametrize(("threshold", "capacity"), [(2.0, 40), (2.0, 3), (0.0, 5)])
@pytest.mark.parametrize("opset", [17, 21])
def test_outlier_columns(threshold: float, capacity: int, opset: int) -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 40)).astype(np.float32)
    built = of(lambda v: outlier_columns_call(v, threshold, capacity), x.shape)
    check_against_onnxruntime(built, {"x": x}, opset)


def test_formats_that_onnx_cannot_round_to_are_refused() -> None:
    with pytest.raises(FewbitsError, match="nf4"):
        export_onnx(of(lambda x: fake_quantize_call(x, parse_format("nf4")), (2, 8)))
