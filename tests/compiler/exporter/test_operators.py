"""Every operator the exporter writes computes in onnxruntime what it means in Relax."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fewbits.compiler.exporter import export_onnx
from fewbits.compiler.exporter.rules import RULES
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.ops.registry import has_meaning
from tvm import ir, relax, tirx

RNG = np.random.default_rng(3)
op = relax.op


def floats(*shape):
    return RNG.standard_normal(shape).astype("float32")


def const(value, dtype=None):
    array = np.asarray(value, dtype)
    return relax.const(array, str(array.dtype))


def build(expression, inputs):
    """A module that computes one expression of the input variables."""
    builder = relax.BlockBuilder()
    with builder.function("main", list(inputs)):
        with builder.dataflow():
            value = builder.emit(expression)
            count = len(value.ty.fields) if isinstance(value.ty, relax.TupleType) else None
            fields = [value] if count is None else [value[i] for i in range(count)]
            results = [builder.emit_output(field) for field in fields]
        builder.emit_func_output(results[0] if count is None else relax.Tuple(results))
    module = builder.finalize()
    names = {
        "input_names": [v.name for v in inputs],
        "output_names": [f"y{i}" for i in range(len(fields))],
    }
    function = module["main"].without_attr("global_symbol").with_attrs(names)
    return ir.IRModule({"main": function})


def run(model, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)


def check(make, *arrays, opset=21):
    variables = [
        relax.Var(f"x{i}", relax.TensorType(a.shape, str(a.dtype))) for i, a in enumerate(arrays)
    ]
    module = build(make(*variables), variables)
    model = export_onnx(module, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    inputs = {f"x{i}": a for i, a in enumerate(arrays)}
    expected = Evaluator(module)({k: torch.from_numpy(v) for k, v in inputs.items()})
    for mine, want in zip(run(model, inputs), expected.values(), strict=True):
        assert mine.dtype == want.numpy().dtype
        assert mine.shape == tuple(want.shape)
        np.testing.assert_allclose(mine, want.numpy(), rtol=1e-5, atol=2e-6, equal_nan=True)
    return model


X = floats(2, 4, 6, 8)
POSITIVE = np.abs(X) + 0.1
UNIT = (np.tanh(X) * 0.9).astype("float32")
INT = RNG.integers(-20, 20, (3, 4)).astype("int32")
DIVISOR = np.where(RNG.integers(0, 2, (3, 4)), 3, -4).astype("int32")

UNARY = {
    "relax.abs": X, "relax.acos": UNIT, "relax.acosh": POSITIVE + 1, "relax.asin": UNIT,
    "relax.asinh": X, "relax.atan": X, "relax.atanh": UNIT, "relax.ceil": X, "relax.cos": X,
    "relax.cosh": X, "relax.erf": X, "relax.exp": X, "relax.floor": X, "relax.log": POSITIVE,
    "relax.negative": X, "relax.round": X * 2, "relax.rsqrt": POSITIVE, "relax.sigmoid": X,
    "relax.sign": X, "relax.sin": X, "relax.sinh": X, "relax.sqrt": POSITIVE, "relax.square": X,
    "relax.tan": UNIT, "relax.tanh": X, "relax.trunc": X * 3, "relax.nn.relu": X,
    "relax.nn.gelu": X, "relax.nn.gelu_tanh": X, "relax.nn.silu": X, "relax.nn.selu": X,
    "relax.isnan": np.array([1, np.nan, np.inf], "float32"),
    "relax.isinf": np.array([1, np.nan, -np.inf], "float32"),
    "relax.isfinite": np.array([1, np.nan, np.inf], "float32"),
    "relax.logical_not": X > 0, "relax.nn.batch_flatten": X, "relax.nn.dropout": None,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, value in UNARY.items() if value is not None])
def test_unary(name):
    if not has_meaning(name):
        pytest.skip("no reference meaning")
    check(lambda x: relax.Call(ir.Op.get(name), [x]), UNARY[name])


BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "floor_mod", "mod"]
BINARY += ["equal", "not_equal", "greater", "greater_equal", "less", "less_equal", "floor_divide"]


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    function = getattr(op, name)
    check(function, np.round(X), np.round(floats(4, 1, 8) * 2) + 0.5)
    if name != "divide":
        check(function, INT, DIVISOR)


def test_power():
    check(op.power, POSITIVE, floats(8))


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logic(name):
    check(getattr(op, name), X > 0, X > 0.5)


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
def test_bits(name):
    check(getattr(op, name), INT, DIVISOR)


DATA = const(floats(4, 8))
VECTOR = [const(floats(4)) for _ in range(3)] + [const(np.abs(floats(4)) + 0.5)]
ROW = [const(floats(8)) for _ in range(2)]
INDICES = const([2, 0, 3], "int64")

CASES = {
    "clip": lambda x: op.clip(x, -0.5, 0.75),
    "clip one side": lambda x: op.clip(x, float("-inf"), 0.75),
    "leakyrelu": lambda x: op.nn.leakyrelu(x, 0.3),
    "prelu": lambda x: op.nn.prelu(x, VECTOR[0], 1),
    "softmax": lambda x: op.nn.softmax(x, 1),
    "log_softmax": lambda x: op.nn.log_softmax(x, -1),
    "softplus": op.nn.softplus,
    "softplus beta": lambda x: op.nn.softplus(x, 2.0),
    "astype": lambda x: op.astype(x, "int32"),
    "where": lambda x: op.where(op.greater(x, const(0.0, "float32")), x, const(0.25, "float32")),
    "full": lambda x: op.add(x, op.full((2, 4, 6, 8), const(2.0, "float32"))),
    "zeros": lambda x: op.add(x, op.zeros((8,), "float32")),
    "arange": lambda x: op.take(x, op.arange(0, 3, 1, "int64"), 3),
    "tril": lambda x: op.tril(x, 1),
    "triu": lambda x: op.triu(x, -1),
    "conv2d": lambda x: op.nn.conv2d(
        x, const(floats(6, 2, 3, 2)), (2, 1), (1, 0, 2, 1), (1, 2), groups=2
    ),
    "conv2d_transpose": lambda x: op.nn.conv2d_transpose(
        x, const(floats(4, 3, 3, 3)), (2, 2), (1, 0, 0, 1), (1, 0), groups=2
    ),
    "conv1d": lambda x: op.nn.conv1d(
        op.reshape(x, (2, 4, 48)), const(floats(5, 4, 3)), 2, (1, 2), 2
    ),
    "conv1d_transpose": lambda x: op.nn.conv1d_transpose(
        op.reshape(x, (2, 4, 48)), const(floats(4, 5, 3)), 2, (1, 1)
    ),
    "matmul": lambda x: op.matmul(x, const(floats(8, 5))),
    "batched matmul": lambda x: op.matmul(x, op.permute_dims(x, [0, 1, 3, 2])),
    "linear": lambda x: op.linear(x, const(floats(5, 8)), const(floats(5))),
    "einsum": lambda x: op.einsum((x, DATA), "abcd,bd->acd"),
    "max_pool2d": lambda x: op.nn.max_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1)),
    "max_pool1d": lambda x: op.nn.max_pool1d(op.reshape(x, (2, 4, 48)), 3, 2, (1, 1)),
    "dilated max_pool2d": lambda x: op.nn.max_pool2d(x, (2, 2), (1, 1), 0, (2, 3)),
    "avg_pool2d": lambda x: op.nn.avg_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1)),
    "avg_pool2d with padding": lambda x: op.nn.avg_pool2d(
        x, (3, 2), (2, 1), (1, 0, 1, 1), count_include_pad=True
    ),
    "adaptive to one": lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1)),
    "adaptive evenly": lambda x: op.nn.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive unevenly": lambda x: op.nn.adaptive_avg_pool2d(x, (4, 3)),
    "batch_norm": lambda x: relax.TupleGetItem(
        op.nn.batch_norm(x, *VECTOR, axis=1, training=False), 0
    ),
    "layer_norm": lambda x: op.nn.layer_norm(x, *ROW, axes=[-1]),
    "layer_norm over two": lambda x: op.nn.layer_norm(
        x, const(floats(6, 8)), const(floats(6, 8)), axes=[2, 3]
    ),
    "group_norm": lambda x: op.nn.group_norm(x, *VECTOR[:2], 2, 1, [2, 3]),
    "instance_norm": lambda x: op.nn.instance_norm(x, *VECTOR[:2], 1, [2, 3]),
    "rms_norm": lambda x: op.nn.rms_norm(x, ROW[0], axes=[-1]),
    "reshape": lambda x: op.reshape(x, (8, -1)),
    "flatten": op.flatten,
    "permute_dims": lambda x: op.permute_dims(x, [0, -1, 1, 2]),
    "reverse dims": op.permute_dims,
    "concat": lambda x: op.concat([x, x, const(floats(2, 4, 1, 8))], 2),
    "stack": lambda x: op.stack([x, x], 1),
    "split evenly": lambda x: op.split(x, 2, 1),
    "split": lambda x: op.split(x, [1, 3], 1),
    "strided_slice": lambda x: op.strided_slice(x, [1, 3], [-3, 7], [4, 0], [1, -2]),
    "flip": lambda x: op.flip(x, 2),
    "take": lambda x: op.take(x, INDICES, 1),
    "take scalar": lambda x: op.take(x, const(1, "int64"), 1),
    "take flat": lambda x: op.take(op.reshape(x, (384,)), INDICES),
    "gather_elements": lambda x: op.gather_elements(x, op.argmax(x, 1, True), 1),
    "gather_nd": lambda x: op.gather_nd(x, const([[0, 3], [1, 2]], "int64")),
    "scatter_elements": lambda x: op.scatter_elements(
        x, op.argmax(x, 1, True), op.sum(x, 1, True), 1
    ),
    "scatter_nd": lambda x: op.scatter_nd(x, const([[1], [0]], "int64"), x),
    "one_hot": lambda x: op.one_hot(
        op.argmax(x, 1), tirx.FloatImm("float32", 2), tirx.FloatImm("float32", -1), 4, -1
    ),
    "pad": lambda x: op.nn.pad(x, (0, 0, 1, 0, 0, 2, 1, 1), "constant", 2.5),
    "reflect pad": lambda x: op.nn.pad(x, (0, 0, 0, 0, 1, 2, 2, 1), "reflect"),
    "replicate pad": lambda x: op.nn.pad(x, (0, 0, 0, 0, 1, 2, 2, 1), "replicate"),
    "circular pad": lambda x: op.nn.pad(x, (0, 0, 0, 0, 1, 2, 2, 1), "circular"),
    "squeeze": lambda x: op.squeeze(op.mean(x, [2, 3], True), [2, -1]),
    "squeeze all": lambda x: op.squeeze(op.mean(x, [2, 3], True)),
    "expand_dims": lambda x: op.expand_dims(x, [0, -1]),
    "broadcast_to": lambda x: op.broadcast_to(op.mean(x, [1], True), (2, 4, 6, 8)),
    "tile": lambda x: op.tile(x, (3, 1, 2)),
    "tile more axes": lambda x: op.tile(x, (2, 1, 1, 1, 2)),
    "repeat": lambda x: op.repeat(x, 3, 1),
    "repeat all": lambda x: op.repeat(x, 2),
    "resize nearest": lambda x: op.image.resize2d(
        x, (12, 4), method="nearest_neighbor", coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    ),
    "resize linear": lambda x: op.image.resize2d(x, (9, 16), method="linear"),
    "pixel_shuffle": lambda x: op.nn.pixel_shuffle(x, 2),
    "sum": lambda x: op.sum(x, [1, 3]),
    "mean": lambda x: op.mean(x, [1], True),
    "global mean": lambda x: op.mean(x, [2, 3], True),
    "mean of all": op.mean,
    "max": lambda x: op.max(x, [-1]),
    "min": lambda x: op.min(x, [0, 2], True),
    "prod": lambda x: op.prod(x, [3]),
    "variance": lambda x: op.variance(x, [2, 3], True),
    "std": lambda x: op.std(x, [1]),
    "argmax": lambda x: op.argmax(x, 1),
    "argmin": lambda x: op.argmin(x, -1, True),
    "argmax of all": op.argmax,
    "cumsum": lambda x: op.cumsum(x, 2),
    "topk": lambda x: op.topk(x, 2, 1),
    "quantize": lambda x: op.quantize(x, const(0.02, "float32"), const(3, "int8"), 0, "int8"),
    "quantize per axis": lambda x: op.quantize(
        x, const(np.abs(floats(4)) / 50 + 0.01), const([1, -2, 3, 0], "int8"), 1, "int8"
    ),
    "quantize to 16 bits": lambda x: op.quantize(
        x, const(0.0002, "float32"), const(30, "int16"), 0, "int16"
    ),
}  # fmt: skip

#: The oldest operator set a case can be written for, where it is not 13.
NEEDS = {"tril": 14, "triu": 14, "circular pad": 19, "quantize to 16 bits": 21}


@pytest.mark.parametrize("opset", [13, 17, 21, 23])
@pytest.mark.parametrize("case", CASES)
def test_case(case, opset):
    variable = relax.Var("x0", relax.TensorType(X.shape, "float32"))
    names = {"relax." + case.split()[0], "relax.nn." + case.split()[0]}
    if names & set(RULES) and not any(has_meaning(name) for name in names):
        pytest.skip("no reference meaning")
    if opset < NEEDS.get(case, 13):
        with pytest.raises(FewbitsError, match=f"needs opset {NEEDS[case]}"):
            export_onnx(build(CASES[case](variable), [variable]), opset=opset)
        return
    check(CASES[case], X, opset=opset)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int16"])
def test_dequantize(dtype):
    codes = RNG.integers(-100, 100, (3, 5)).astype(dtype)
    scale = const(np.abs(floats(5)) + 0.1)
    zero = const(np.zeros(5) if dtype == "int32" else [1, 2, -3, 4, 5], dtype)
    check(lambda x: op.dequantize(x, scale, zero, -1), codes)
    check(lambda x: op.dequantize(x, const(0.5, "float32"), const(0, "int32"), 0), codes)


def test_integer_products():
    a, b = (RNG.integers(-128, 128, shape).astype("int8") for shape in ((3, 5), (5, 4)))
    check(lambda x: op.matmul(x, const(b), out_dtype="int32"), a)
    x = RNG.integers(-128, 128, (1, 3, 6, 5)).astype("int8")
    w = RNG.integers(-128, 128, (4, 3, 3, 3)).astype("int8")
    check(lambda v: op.nn.conv2d(v, const(w), padding=(1, 0, 1, 2), out_dtype="int32"), x)


def test_layer_norm_over_channels():
    """The evaluator has trailing axes only, so the reference is the definition."""
    variable = relax.Var("x0", relax.TensorType(X.shape, "float32"))
    module = build(op.nn.layer_norm(variable, *VECTOR[:2], axes=[1]), [variable])
    gamma, beta = (v.value.numpy().reshape(1, 4, 1, 1) for v in VECTOR[:2])
    centered = X - X.mean(1, keepdims=True)
    expected = centered / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-5) * gamma + beta
    [result] = run(export_onnx(module), {"x0": X})
    np.testing.assert_allclose(result, expected, atol=1e-5)
