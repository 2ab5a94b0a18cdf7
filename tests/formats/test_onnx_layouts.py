"""ONNX's own readers and onnxruntime read what we lay out, and the other way round."""

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from fewbits.formats.integer import Integer
from fewbits.formats.matmul_nbits import MatMulNBits, from_matmul_nbits, to_matmul_nbits
from fewbits.formats.onnx_layout import (
    element_type,
    from_element_type,
    from_linear,
    read_raw,
    to_linear,
)
from fewbits.formats.packing import pack
from fewbits.formats.parse import parse_format
from onnx import TensorProto, helper, numpy_helper

W = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
TYPES = ["int4", "uint4", "int8", "uint8", "int2", "uint2", "fp8_e4m3fn", "fp8_e4m3fnuz",
         "fp8_e5m2", "fp8_e5m2fnuz", "fp4_e2m1"]  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_onnx_reads_our_bytes(name):
    number_format = parse_format(name)
    number = element_type(number_format)
    assert from_element_type(number) == number_format
    codes = np.arange(2**number_format.bits - 1, dtype=np.uint8)
    raw = pack(codes, number_format.bits).tobytes()
    proto = helper.make_tensor("w", number, codes.shape, raw, raw=True)
    theirs = numpy_helper.to_array(proto).astype(np.float32)
    assert np.array_equal(theirs, number_format.decode(codes), equal_nan=True)
    assert np.array_equal(read_raw(number, raw, codes.shape), codes)


def test_types_that_onnx_lacks_are_refused():
    with pytest.raises(FewbitsError, match="no element type"):
        element_type(parse_format("nf4"))
    with pytest.raises(FewbitsError):
        from_element_type(TensorProto.FLOAT)
    with pytest.raises(FewbitsError):
        read_raw(TensorProto.INT4, b"\0" * 4, (1 << 40,))


def _run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "uint8", "fp8_e4m3fn", "fp8_e5m2"])
@pytest.mark.parametrize(
    "granularity", [PerTensor(), PerChannel(0), PerChannel(-1), PerGroup(16), PerGroup(4, 0)],
    ids=str,
)  # fmt: skip
def test_onnxruntime_dequantizes_the_same_values(name, granularity):
    number_format = parse_format(name)
    blocked = isinstance(granularity, PerGroup)
    integer = isinstance(number_format, Integer)
    if blocked and not integer:
        pytest.skip("onnxruntime's blocked DequantizeLinear is for integers")
    method = "affine" if integer else "absmax"
    tensor = compress(W, number_format, granularity=granularity, method=method)
    layout = to_linear(tensor)
    back = from_linear(layout)
    assert np.array_equal(back.decode(), tensor.decode())
    assert back.granularity.scale_shape(W.shape) == layout.scales.shape
    initializers = [
        helper.make_tensor("q", layout.element_type, layout.shape, layout.raw, raw=True),
        numpy_helper.from_array(layout.scales, "s"),
    ]
    inputs = ["q", "s"]
    if layout.zero_points is not None:
        shape = layout.scales.shape
        initializers.append(
            helper.make_tensor("z", layout.element_type, shape, layout.zero_points, raw=True)
        )
        inputs.append("z")
    node = helper.make_node(
        "DequantizeLinear", inputs, ["y"], axis=layout.axis, block_size=layout.block_size
    )
    graph = helper.make_graph(
        [node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, W.shape)],
        initializers,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert np.array_equal(_run(model), tensor.decode())


def test_layouts_that_onnx_lacks_are_refused():
    with pytest.raises(FewbitsError, match="no scales per"):
        to_linear(compress(W, Integer(4), granularity=PerBlock(8)))


def _matmul_nbits(operator: MatMulNBits) -> onnx.ModelProto:
    inputs = ["x", "B", "scales"]
    initializers = [
        numpy_helper.from_array(operator.weight, "B"),
        numpy_helper.from_array(operator.scales, "scales"),
    ]
    if operator.zero_points is not None:
        inputs.append("zero_points")
        initializers.append(numpy_helper.from_array(operator.zero_points, "zero_points"))
    node = helper.make_node(
        "MatMulNBits", inputs, ["y"], domain="com.microsoft",
        K=operator.k, N=operator.n, bits=operator.bits, block_size=operator.block_size,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (operator.k, operator.k))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (operator.k, operator.n))],
        initializers,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("signed", "method"), [(True, "absmax"), (True, "affine"),
                                                (False, "affine")])  # fmt: skip
@pytest.mark.parametrize("k", [64, 40])
def test_onnxruntime_multiplies_by_the_same_weight(bits, signed, method, k):
    weight = np.random.default_rng(1).standard_normal((6, k)).astype(np.float32)
    tensor = compress(weight, Integer(bits, signed), granularity=PerGroup(16), method=method)
    operator = to_matmul_nbits(tensor)
    assert np.array_equal(from_matmul_nbits(operator).decode(), tensor.decode())
    product = _run(_matmul_nbits(operator), x=np.eye(k, dtype=np.float32))
    assert np.allclose(product, tensor.decode().T, atol=1e-6)


def test_matmul_nbits_refuses_what_it_cannot_hold():
    for name, granularity in (
        ("nf4", PerGroup(16)), ("int3", PerGroup(16)), ("int4", PerGroup(8)),
        ("int4", PerChannel()), ("int4", PerGroup(16, 0)),
    ):  # fmt: skip
        with pytest.raises(FewbitsError):
            to_matmul_nbits(compress(W, parse_format(name), granularity=granularity))
    good = to_matmul_nbits(compress(W, Integer(4), granularity=PerGroup(16)))
    hostile = MatMulNBits(1 << 40, 1 << 20, 4, 16, good.weight, good.scales, None)
    with pytest.raises(FewbitsError):
        from_matmul_nbits(hostile)
