"""Every meaning gives what TVM's own lowering computes, and the same under vmap as in a loop.

All cases are outputs of one module, which is compiled once.
"""

import numpy as np
import pytest
import torch
import tvm
from fewbits.ops.evaluate import Evaluator
from tvm import relax
from tvm.relax import op
from tvm.relax.expr import prim_value

RNG = np.random.default_rng(7)
IMAGE = RNG.normal(size=(1, 4, 9, 7)).astype(np.float32)
OTHER = RNG.normal(size=(1, 4, 9, 7)).astype(np.float32)
UNIT = RNG.uniform(0.1, 0.9, size=(1, 4, 9, 7)).astype(np.float32)
COUNTS = RNG.integers(-20, 20, size=(1, 6, 5)).astype(np.int32)
DIVISORS = RNG.choice([-3, -2, 2, 5], size=(1, 6, 5)).astype(np.int32)
SMALL = RNG.integers(0, 5, size=(1, 6, 5)).astype(np.int32)
INPUTS = {
    "x": IMAGE,
    "y": OTHER,
    "u": UNIT,
    "i": COUNTS,
    "d": DIVISORS,
    "s": SMALL,
}


def const(array, kind=None):
    array = np.asarray(array, kind)
    return relax.const(array, str(array.dtype))


def reals(*shape):
    """Weights that depend on the shape only, so that every build has the same."""
    return const(np.random.default_rng(sum(shape)).normal(size=shape), np.float32)


def cases(v):
    """Case name to call; `v` maps input names to variables."""
    x, y, u, i, d, s = (v[name] for name in INPUTS)
    made = {}
    for name in ["add", "subtract", "multiply", "divide", "minimum", "maximum"]:
        made[name] = getattr(op, name)(x, y)
    for name in ["less", "less_equal", "greater", "greater_equal", "equal", "not_equal"]:
        made[f"{name} of integers"] = getattr(op, name)(i, d)
    for name in [
        "add",
        "subtract",
        "multiply",
        "divide",
        "floor_divide",
        "floor_mod",
        "maximum",
        "minimum",
    ]:
        made[f"{name} of integers"] = getattr(op, name)(i, d)
    for name in ["bitwise_and", "bitwise_or", "bitwise_xor"]:
        made[name] = getattr(op, name)(i, d)
    made["mod of reals"] = op.mod(x, u)
    made["floor_mod of reals"] = op.floor_mod(x, u)
    made["left_shift"] = op.left_shift(i, s)
    made["right_shift"] = op.right_shift(i, s)
    made["power"] = op.power(u, y)
    made["broadcast add"] = op.add(x, reals(1, 4, 1, 1))
    for name in [
        "abs",
        "ceil",
        "cos",
        "cosh",
        "erf",
        "exp",
        "floor",
        "negative",
        "sigmoid",
        "sign",
        "sin",
        "sinh",
        "square",
    ]:
        made[name] = getattr(op, name)(x)
    for name in ["tan", "tanh", "trunc", "atan", "asinh"]:
        made[name] = getattr(op, name)(x)
    for name in ["acos", "asin", "atanh", "log", "sqrt", "rsqrt"]:
        made[name] = getattr(op, name)(u)
    made["acosh"] = op.acosh(op.add(u, const(1.0, np.float32)))
    for name in ["isnan", "isinf", "isfinite"]:
        made[name] = getattr(op, name)(op.log(x))
    positive = op.greater(x, y)
    made["logical_and"] = op.logical_and(positive, op.greater(u, y))
    made["logical_or"] = op.logical_or(positive, op.greater(u, y))
    made["logical_xor"] = op.logical_xor(positive, op.greater(u, y))
    made["logical_not"] = op.logical_not(positive)
    made["where"] = op.where(positive, x, y)
    made["clip"] = op.clip(x, -0.5, 0.75)
    made["clip integers"] = op.clip(i, -5, 6)
    made["astype int8"] = op.astype(op.multiply(x, const(20.0, np.float32)), "int8")
    made["astype bool"] = op.astype(i, "bool")
    made["astype uint8"] = op.astype(s, "uint8")
    # Convolutions.
    made["conv2d"] = op.nn.conv2d(x, reals(6, 4, 3, 3), padding=[1, 0, 2, 1], strides=[2, 1])
    made["conv2d grouped"] = op.nn.conv2d(x, reals(8, 2, 3, 3), groups=2, dilation=[2, 1])
    made["conv2d depthwise"] = op.nn.conv2d(x, reals(4, 1, 3, 3), groups=4, padding=[1, 1, 1, 1])
    last = op.permute_dims(x, [0, 2, 3, 1])
    made["conv2d NHWC"] = op.nn.conv2d(
        last, reals(3, 3, 4, 5), data_layout="NHWC", kernel_layout="HWIO", padding=[0, 1, 1, 0]
    )
    line = op.reshape(x, (1, 4, 63))
    made["conv1d"] = op.nn.conv1d(line, reals(5, 4, 3), strides=2, padding=[2, 0], dilation=2)
    block = op.reshape(x, (1, 4, 3, 3, 7))
    made["conv3d"] = op.nn.conv3d(block, reals(2, 4, 2, 2, 3), padding=[1, 0, 1, 0, 1, 1])
    made["conv2d_transpose"] = op.nn.conv2d_transpose(
        x, reals(4, 3, 3, 3), strides=[2, 2], padding=[1, 0, 0, 1], output_padding=[1, 0]
    )
    made["conv2d_transpose grouped"] = op.nn.conv2d_transpose(
        x, reals(4, 2, 2, 3), groups=2, strides=[1, 2], padding=[0, 1, 0, 1]
    )
    made["conv1d_transpose"] = op.nn.conv1d_transpose(
        line, reals(4, 2, 4), strides=3, padding=[1, 2], output_padding=1
    )
    # Pooling.
    for ceil in (False, True):
        for inside in (False, True):
            made[f"avg_pool2d ceil={ceil} include={inside}"] = op.nn.avg_pool2d(
                x, (3, 2), (2, 3), (1, 0, 1, 1), ceil_mode=ceil, count_include_pad=inside
            )
        made[f"max_pool2d ceil={ceil}"] = op.nn.max_pool2d(
            x, (3, 2), (2, 3), (1, 0, 1, 1), (1, 2), ceil_mode=ceil
        )
    made["max_pool2d NHWC"] = op.nn.max_pool2d(last, (2, 2), (2, 2), layout="NHWC")
    made["max_pool2d integers"] = op.nn.max_pool2d(op.expand_dims(i, 0), (2, 2), (1, 1), (1, 1))
    made["avg_pool2d dilated"] = op.nn.avg_pool2d(x, (2, 2), (1, 2), (1, 1, 0, 0), (3, 2))
    made["avg_pool1d"] = op.nn.avg_pool1d(line, 4, 3, (1, 2), ceil_mode=True)
    made["max_pool1d"] = op.nn.max_pool1d(line, 4, 3, (1, 2))
    made["avg_pool3d"] = op.nn.avg_pool3d(block, (2, 2, 2), (1, 1, 2), (1, 0, 0, 0, 1, 0))
    made["max_pool3d"] = op.nn.max_pool3d(block, (2, 2, 2), (1, 1, 2), (1, 0, 0, 0, 1, 0))
    made["adaptive_avg_pool2d"] = op.nn.adaptive_avg_pool2d(x, (4, 3))
    made["adaptive_avg_pool1d"] = op.nn.adaptive_avg_pool1d(line, 8)
    # Neural.
    for name in ["relu", "gelu", "gelu_tanh", "silu", "selu"]:
        made[f"nn.{name}"] = getattr(op.nn, name)(x)
    made["nn.leakyrelu"] = op.nn.leakyrelu(x, 0.2)
    made["nn.prelu"] = op.nn.prelu(x, reals(4), 1)
    made["nn.softplus"] = op.nn.softplus(x, 2.0, 3.0)
    made["nn.softmax"] = op.nn.softmax(x, 1)
    made["nn.log_softmax"] = op.nn.log_softmax(x, -1)
    made["nn.pixel_shuffle"] = op.nn.pixel_shuffle(x, 2)
    made["nn.batch_flatten"] = op.nn.batch_flatten(x)
    made["nn.pad constant"] = op.nn.pad(x, [0, 0, 1, 0, 2, 1, 0, 3], pad_value=1.5)
    for mode in ("reflect", "replicate", "circular"):
        made[f"nn.pad {mode}"] = op.nn.pad(x, [0, 0, 0, 0, 2, 1, 3, 0], pad_mode=mode)
    statistics = (reals(4), reals(4), reals(4), const([0.5, 1, 1.5, 2], np.float32))
    normal = op.nn.batch_norm(x, *statistics, axis=1, epsilon=1e-3, training=False)
    made["nn.batch_norm"] = normal
    made["nn.batch_norm training"] = op.nn.batch_norm(x, *statistics, axis=1, training=True)
    made["nn.layer_norm"] = op.nn.layer_norm(x, reals(9, 7), reals(9, 7), axes=[-2, -1])
    made["nn.rms_norm"] = op.nn.rms_norm(x, reals(7), axes=[-1])
    made["nn.group_norm"] = op.nn.group_norm(x, reals(4), reals(4), 2, 1, [2, 3])
    made["nn.instance_norm"] = op.nn.instance_norm(x, reals(4), reals(4), 1, [2, 3])
    heads = op.reshape(x, (1, 9, 4, 7))
    made["nn.attention"] = op.nn.attention(heads, heads, heads, causal_mask="TopLeft")
    made["nn.attention bias"] = op.nn.attention(heads, heads, heads, reals(1, 4, 9, 9), 0.3)
    # Reductions.
    for name in ["sum", "mean", "max", "min", "prod", "variance", "std"]:
        made[f"{name} axes"] = getattr(op, name)(x, [1, -1])
        made[f"{name} all"] = getattr(op, name)(u, None, True)
    made["sum of integers"] = op.sum(i, [1], True)
    made["argmax"] = op.argmax(x, 1, True)
    made["argmin"] = op.argmin(x, -1)
    made["argmax of equals"] = op.argmax(op.divide(i, const(9, np.int32)), 1)
    made["argmin of equals"] = op.argmin(op.divide(i, const(9, np.int32)), 1)
    made["cumsum"] = op.cumsum(x, 1)
    made["cumsum exclusive"] = op.cumsum(x, 2, exclusive=True)
    made["cumprod"] = op.cumprod(u, 3, exclusive=True)
    # Sorting.
    made["sort"] = op.sort(x, 1, True)
    made["argsort"] = op.argsort(x, -1, True)
    made["topk"] = op.topk(x, 3, 2)
    made["topk smallest"] = op.topk(x, 2, 1, "values", False)
    # Movement.
    made["reshape"] = op.reshape(x, (1, 9, 28))
    made["flatten"] = op.flatten(x)
    made["permute_dims"] = op.permute_dims(x, [0, 3, 1, 2])
    made["permute_dims reversed"] = op.permute_dims(x)
    made["expand_dims"] = op.expand_dims(x, [0, -1, 2])
    made["squeeze"] = op.squeeze(x, [0])
    made["broadcast_to"] = op.broadcast_to(reals(1, 4, 1, 1), (2, 4, 3, 3))
    made["concat"] = op.concat([x, y, u], 1)
    made["stack"] = op.stack([x, y], 2)
    made["split"] = op.split(x, [2, 5], 2)
    made["split equally"] = op.split(x, 2, 1)
    made["strided_slice"] = op.strided_slice(x, [2, 3], [1, -4], [8, 100], [3, 1])
    made["strided_slice backwards"] = op.strided_slice(x, [2, 3], [-1, 5], [0, 0], [-2, -1])
    made["tile"] = op.tile(x, (2, 1, 3))
    made["repeat"] = op.repeat(x, 3, 2)
    made["flip"] = op.flip(x, 3)
    made["meshgrid"] = op.meshgrid([reals(3), reals(4)], "ij")
    made["take"] = op.take(x, const([[3, 0], [1, 1]], np.int64), 1)
    made["take wrap"] = op.take(x, const([-1, 9, 3], np.int64), 2, "wrap")
    made["take clip"] = op.take(x, const([-1, 9, 3], np.int64), 2, "clip")
    made["gather_elements"] = op.gather_elements(
        x, const(np.arange(84).reshape(1, 4, 3, 7) * 5 % 9, np.int64), 2
    )
    made["gather_nd"] = op.gather_nd(x, const([[[0, 1], [0, 3]], [[0, 2], [0, 0]]], np.int64))
    made["gather_nd batch"] = op.gather_nd(x, const([[[1, 2], [3, 8]]], np.int64), 1)
    places = const([[[[1, 4, 0, 2, 3, 6, 5]] * 9] * 2], np.int64)
    made["scatter_elements"] = op.scatter_elements(x, places, reals(1, 2, 9, 7), 3)
    made["scatter_elements add"] = op.scatter_elements(x, places, reals(1, 2, 9, 7), 2, "add")
    made["scatter_nd"] = op.scatter_nd(x, const([[0, 1], [0, 3]], np.int64), reals(2, 9, 7))
    made["one_hot"] = op.one_hot(const([3, 0], np.int64), prim_value(2.0), prim_value(-1.0), 5, 1)
    made["tril"] = op.tril(x, 1)
    made["triu"] = op.triu(x, -2)
    made["full"] = op.full((2, 3), const(1.5, np.float32), "float32")
    made["zeros_like"] = op.zeros_like(x)
    made["ones"] = op.ones((2, 2), "int32")
    made["arange"] = op.arange(2, 11, 3, "int64")
    made["eye"] = op.eye(3, 4, 1)
    made["matmul"] = op.matmul(x, op.permute_dims(y, [0, 1, 3, 2]))
    made["matmul broadcast"] = op.matmul(x, reals(7, 5))
    made["matmul vector"] = op.matmul(x, reals(7))
    made["einsum"] = op.einsum((x, reals(7, 3)), "nchw,wk->nhk")
    # Resizing.
    for mode in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"):
        for method in ("linear", "cubic"):
            made[f"resize2d {method} {mode}"] = op.image.resize2d(
                x, (13, 5), method=method, coordinate_transformation_mode=mode
            )
    for rounding in ("round", "floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        made[f"resize2d nearest {rounding}"] = op.image.resize2d(
            x,
            (13, 5),
            method="nearest_neighbor",
            rounding_method=rounding,
            coordinate_transformation_mode="asymmetric",
        )
    made["resize2d NHWC"] = op.image.resize2d(last, (4, 4), layout="NHWC", method="linear")
    # Quantization.
    made["quantize"] = op.quantize(x, const(0.037, np.float32), const(-3, np.int8), -1, "int8")
    made["quantize per axis"] = op.quantize(
        x, const([0.1, 0.2, 0.3, 0.4], np.float32), const([0, 9, 128, 255], np.uint8), 1, "uint8"
    )
    made["dequantize"] = op.dequantize(
        op.astype(i, "int8"), const([0.5, 1, 2, 3, 4, 5], np.float32), const([0] * 6, np.int8), 1
    )
    made["dequantize int32"] = op.dequantize(i, const(0.1, np.float32), const(3, np.int32))
    return made


#: Cases that this version of TVM declares but cannot lower.
NOT_LOWERED = {"nn.pixel_shuffle"}


def build(skip=()):
    variables = {
        name: relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
        for name, array in INPUTS.items()
    }
    builder = relax.BlockBuilder()
    names, outputs = [], []
    with builder.function("main", list(variables.values())):
        with builder.dataflow():
            for name, call in cases(variables).items():
                if name in skip:
                    continue
                call = flatten_arguments(builder, call)
                var = builder.emit(call, name)
                if isinstance(var.ty, relax.TupleType):
                    for index in range(len(var.ty.fields)):
                        names.append(f"{name} [{index}]")
                        outputs.append(builder.emit(relax.TupleGetItem(var, index), names[-1]))
                else:
                    names.append(name)
                    outputs.append(var)
            outputs = [builder.emit_output(var) for var in outputs]
        builder.emit_func_output(relax.Tuple(outputs))
    module = builder.get()
    module["main"] = module["main"].with_attr("output_names", names)
    return module


def flatten_arguments(builder, call):
    """Bind nested calls."""

    def bound(argument):
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([bound(field) for field in argument.fields])
        if isinstance(argument, relax.Call):
            return builder.emit(flatten_arguments(builder, argument))
        return argument

    arguments = [bound(argument) for argument in call.args]
    return relax.Call(call.op, arguments, call.attrs, call.ty_args)


MODULE = build()
NAMES = [str(name) for name in MODULE["main"].attrs["output_names"]]


@pytest.fixture(scope="module")
def compiled():
    lowered = build(NOT_LOWERED)
    executable = tvm.compile(lowered, "llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    results = machine["main"](*[tvm.runtime.tensor(array) for array in INPUTS.values()])
    names = [str(name) for name in lowered["main"].attrs["output_names"]]
    return dict(zip(names, [result.numpy() for result in results], strict=True))


@pytest.fixture(scope="module")
def evaluated():
    return Evaluator(MODULE)({name: torch.from_numpy(array) for name, array in INPUTS.items()})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_LOWERED])
def test_equals_tvm(name, compiled, evaluated):
    ours, theirs = evaluated[name].numpy(), compiled[name]
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def three_samples():
    rng = np.random.default_rng(3)
    return {
        name: np.concatenate(
            [array, rng.permutation(array.reshape(-1)).reshape(array.shape), array]
        )
        for name, array in INPUTS.items()
    }


@pytest.fixture(scope="module")
def in_a_batch(three_samples):
    return next(iter(Evaluator(MODULE).batched(three_samples)))


@pytest.fixture(scope="module")
def in_a_loop(three_samples):
    run = Evaluator(MODULE)
    return [
        run({key: torch.from_numpy(array[k : k + 1]) for key, array in three_samples.items()})
        for k in range(3)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_batched_equals_looped(name, in_a_batch, in_a_loop):
    together = in_a_batch[name]
    for k, alone in enumerate(in_a_loop):
        torch.testing.assert_close(together[k], alone[name], rtol=1e-4, atol=1e-5, equal_nan=True)
