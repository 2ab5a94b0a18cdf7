"""The integer operators' TIR gives, on TVM's own CPU back end, what their definitions say."""

import numpy as np
import pytest
import torch
import tvm
from fewbits.ops.evaluate import Evaluator
from fewbits.ops.registry import make_call
from tvm import relax

RNG = np.random.default_rng(11)


def codes(*shape):
    return RNG.integers(-128, 128, shape).astype(np.int8)


INPUTS = {
    "x": codes(1, 7, 6, 4),
    "y": codes(1, 7, 6, 4),
    "row": codes(1, 1, 6, 4),
    "flat": codes(3, 20),
    "p": codes(2, 3, 5, 7),
    "q": codes(3, 7, 4),
}


def requantization(shift=0, low=-128, high=127):
    return {"shift": shift, "minimum": low, "maximum": high}


def per_channel(channels, largest=2**22):
    bias = RNG.integers(-(2**15), 2**15, channels).astype(np.int32)
    multiplier = RNG.integers(largest // 4, largest, channels).astype(np.int32)
    return [relax.const(bias), relax.const(multiplier)]


def convolution(x, weight, **changes):
    attributes = {
        "strides": [1, 1],
        "padding": [1, 1, 1, 1],
        "dilation": [1, 1],
        "groups": 1,
        "input_zero": -7,
        **requantization(2),
        **changes,
    }
    arguments = [x, relax.const(weight), *per_channel(weight.shape[0])]
    return make_call("fewbits.conv2d", arguments, **attributes)


def pooling(kind, x, **changes):
    attributes = {
        "kernel": [3, 2],
        "strides": [2, 1],
        "padding": [1, 0, 1, 1],
        "dilation": [1, 1],
        **changes,
    }
    if kind == "max_pool2d":
        return make_call(f"fewbits.{kind}", [x], **attributes)
    area = attributes["kernel"][0] * attributes["kernel"][1]
    attributes = {
        "count_include_pad": 0,
        "input_zero": 5,
        **requantization(6),
        **attributes,
    }
    return make_call(f"fewbits.{kind}", [x, *per_channel(area, 2**26)], **attributes)


def cases(v):
    """Calls by name; `v` maps input names to variables."""
    x, y, row, flat, p, q = (v[name] for name in ("x", "y", "row", "flat", "p", "q"))
    wide = RNG.integers(-255, 256, (5, 3, 3, 4)).astype(np.int16)
    table = RNG.integers(0, 2**15, 256).astype(np.int32)
    table[0] = 2**15
    product = {"bias": 1 << 10, "multiplier": 3 << 22, **requantization(1, -100, 90)}
    made = {
        "conv2d": convolution(x, codes(5, 3, 3, 4)),
        "conv2d 16-bit weights": convolution(x, wide),
        "conv2d strides": convolution(x, codes(3, 2, 3, 4), strides=[2, 3], padding=[0, 2, 1, 0]),
        "conv2d dilation": convolution(x, codes(3, 3, 2, 4), dilation=[3, 4], padding=[3, 2, 3, 2]),
        "conv2d groups": convolution(x, codes(6, 3, 3, 2), groups=2),
        "conv2d depthwise": convolution(x, codes(8, 3, 3, 1), groups=4, input_zero=0),
        "conv2d no padding": convolution(x, codes(6, 1, 1, 4), padding=[0, 0, 0, 0], minimum=3),
        "dense": make_call(
            "fewbits.dense",
            [flat, relax.const(codes(9, 20)), *per_channel(9)],
            **requantization(1),
        ),
        "dense 16-bit weights": make_call(
            "fewbits.dense",
            [flat, relax.const(RNG.integers(-255, 256, (9, 20)), "int16"), *per_channel(9)],
            **requantization(1),
        ),
        "matmul": make_call("fewbits.matmul", [p, q], a_zero=3, b_zero=-9, **product),
        "add": make_call(
            "fewbits.add", [x, y],
            a_multiplier=-1200, b_multiplier=31000, bias=-555555, **requantization(14, -128, 100),
        ),
        "add broadcast": make_call(
            "fewbits.add", [row, x],
            a_multiplier=900, b_multiplier=1000, bias=1 << 9, **requantization(10),
        ),
        "multiply": make_call("fewbits.multiply", [x, y], a_zero=-20, b_zero=4, **product),
        "multiply broadcast": make_call(
            "fewbits.multiply", [x, row], a_zero=0, b_zero=4, **product
        ),
        "lookup": make_call("fewbits.lookup", [x, relax.const(codes(256))]),
        "average_pool2d": pooling("average_pool2d", x),
        "average_pool2d counting padding": pooling("average_pool2d", x, count_include_pad=1),
        "average_pool2d in padding": pooling(
            "average_pool2d", x, kernel=[2, 2], padding=[2, 2, 2, 2], strides=[1, 2]
        ),
        "max_pool2d": pooling("max_pool2d", x),
        "max_pool2d dilated": pooling("max_pool2d", x, dilation=[2, 3], padding=[2, 1, 0, 1]),
        "softmax": make_call(
            "fewbits.softmax", [flat, relax.const(table)],
            multiplier=256, bias=-(1 << 15) * 255, **requantization(16),
        ),
    }  # fmt: skip
    return made | functions(v)


def functions(v):
    """Division, PReLU, resizing and layer norm."""
    x, y, row, flat = (v[name] for name in ("x", "y", "row", "flat"))
    reciprocals = RNG.integers(-(2**15), 2**15, 256).astype(np.int32)
    quotient = {"a_zero": 7, "bias": 3 << 13, **requantization(14, -120, 127)}
    slopes = RNG.integers(-(2**15), 2**15, 4).astype(np.int32)
    rows = np.array([[0, 0], [0, 1], [3, 4], [6, 6]], np.int32)
    columns = np.array([[0, 1], [2, 3], [4, 5]], np.int32)
    parts = [RNG.integers(0, 2049, n).astype(np.int32) for n in (4, 3)]

    def norm(data, count, epsilon):
        weight = RNG.integers(-(2**14), 2**14, count).astype(np.int32)
        bias = RNG.integers(-(2**24), 2**24, count).astype(np.int32)
        return make_call(
            "fewbits.layer_norm", [data, relax.const(weight), relax.const(bias)],
            epsilon=epsilon, **requantization(20, -128, 110),
        )  # fmt: skip

    return {
        "divide": make_call("fewbits.divide", [x, y, relax.const(reciprocals)], **quotient),
        "divide broadcast": make_call(
            "fewbits.divide", [x, row, relax.const(reciprocals)], **quotient
        ),
        "prelu": make_call(
            "fewbits.prelu", [x, relax.const(slopes)],
            zero=-9, positive=21000, bias=-5 << 14, **requantization(14),
        ),
        "resize2d": make_call(
            "fewbits.resize2d",
            [x, relax.const(rows), relax.const(parts[0]), relax.const(columns),
             relax.const(parts[1])],
        ),
        "layer_norm": norm(flat, 20, 12345),
        "layer_norm without epsilon": norm(x, 4, 0),
    }  # fmt: skip


def variables():
    return {
        name: relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
        for name, array in INPUTS.items()
    }


def build():
    parameters = variables()
    builder = relax.BlockBuilder()
    with builder.function("main", list(parameters.values())):
        with builder.dataflow():
            made = cases(parameters)
            outputs = [builder.emit_output(builder.emit(call, name)) for name, call in made.items()]
        builder.emit_func_output(relax.Tuple(outputs))
    module = builder.get()
    module["main"] = module["main"].with_attr("output_names", list(made))
    return module


MODULE = build()


@pytest.fixture(scope="module")
def compiled():
    machine = relax.VirtualMachine(tvm.compile(MODULE, "llvm"), tvm.cpu())
    results = machine["main"](*[tvm.runtime.tensor(array) for array in INPUTS.values()])
    names = [str(name) for name in MODULE["main"].attrs["output_names"]]
    return dict(zip(names, [result.numpy() for result in results], strict=True))


@pytest.fixture(scope="module")
def defined():
    return Evaluator(MODULE)({name: torch.from_numpy(array) for name, array in INPUTS.items()})


@pytest.mark.parametrize("name", list(cases(variables())))
def test_equals_definition(name, compiled, defined):
    expected = defined[name].numpy()
    assert compiled[name].dtype == np.int8
    np.testing.assert_array_equal(compiled[name], expected)
    assert len(np.unique(expected)) > 5, "saturated cases test nothing"
