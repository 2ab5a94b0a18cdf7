"""Generated code on the emulated cores: the same bits as on the host, in place where it says so."""

import numpy as np
import pytest
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.program import Buffer
from fewbits.targets.mcu.target import get_target
from fewbits.targets.mcu.tir import lower_with_tir
from tvm import relax
from tvm.relax import op

RNG = np.random.default_rng(3)
IMAGE = RNG.normal(size=(1, 3, 9, 8)).astype(np.float32)
CODES = RNG.integers(-128, 128, (1, 9, 8)).astype(np.int8)
WEIGHT = relax.const(RNG.normal(size=(4, 3, 3, 3)).astype(np.float32))
SCALE, ZERO = relax.const(0.03, "float32"), relax.const(-5, "int8")
CASES = {
    "conv2d": (IMAGE, lambda x: op.nn.conv2d(x, WEIGHT, padding=[1, 2, 0, 1], strides=[2, 1])),
    "softmax": (IMAGE, op.nn.softmax),
    "tanh": (IMAGE, op.tanh),
    "gelu": (IMAGE, op.nn.gelu),
    "sqrt": (np.abs(IMAGE), op.sqrt),
    "sin": (1000 * IMAGE, op.sin),
    "max_pool2d": (IMAGE, lambda x: op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1))),
    "resize2d": (IMAGE, lambda x: op.image.resize2d(x, (5, 11), method="cubic")),
    "mean": (IMAGE, lambda x: op.mean(x, [2, 3])),
    "topk": (IMAGE, lambda x: op.topk(x, 3, ret_type="values")),
    "quantize": (IMAGE, lambda x: op.quantize(x, SCALE, ZERO)),
    "dequantize": (CODES, lambda x: op.dequantize(x, SCALE, ZERO)),
    "right_shift": (CODES, lambda x: op.right_shift(x, relax.const(2, "int8"))),
    "multiply": (CODES, lambda x: op.multiply(x, x)),
}


def lowered(array, make):
    parameter = relax.Var("x", relax.TensorType(array.shape, str(array.dtype)))
    builder = relax.BlockBuilder()
    with builder.function("main", [parameter]):
        with builder.dataflow():
            var = builder.emit(make(parameter))
            result = builder.emit_output(var)
        builder.emit_func_output(result)
    call = builder.get()["main"].body.blocks[0].bindings[0].value
    shape = tuple(int(extent) for extent in var.ty.shape.values)
    inputs = [Buffer("x", array.shape, str(array.dtype))]
    outputs = [Buffer("y", shape, str(var.ty.dtype))]
    arguments = sum(argument.same_as(parameter) for argument in call.args)
    return lower_with_tir("layer", call, inputs * arguments, outputs, {}, get_target("c"))


CALLS = {name: lowered(array, make) for name, (array, make) in CASES.items()}


@pytest.fixture(scope="module")
def host():
    names = [name for name in CALLS if name != "multiply"]
    probe = Probe([CALLS[name] for name in names], get_target("c"))
    return {name: probe.run(i, [CASES[name][0]]).outputs[0] for i, name in enumerate(names)}


@pytest.fixture(scope="module", params=["cortex-m0plus", "cortex-m4", "rv32imc"])
def core(request):
    names = [name for name in CALLS if name != "multiply"]
    return names, Probe([CALLS[name] for name in names], get_target(request.param))


def test_same_bits_as_on_the_host(core, host):
    names, probe = core
    for index, name in enumerate(names):
        result = probe.run(index, [CASES[name][0]]).outputs[0]
        np.testing.assert_array_equal(result.view(np.uint8), host[name].view(np.uint8), name)


def test_overlapping_memory(core, host):
    names, probe = core
    tried = 0
    for index, name in enumerate(names):
        (distance,) = CALLS[name].overlap
        if distance is not None:
            result = probe.run(index, [CASES[name][0]], distance=distance).outputs[0]
            np.testing.assert_array_equal(result, host[name], name)
            tried += 1
    assert tried >= 6


def test_overlap_is_refused_where_elements_are_read_again():
    assert CALLS["conv2d"].overlap == (None,)
    assert CALLS["max_pool2d"].overlap == (None,)
    assert CALLS["softmax"].overlap == (None,)
    assert CALLS["multiply"].overlap == (None, None)  # one buffer twice


def test_growing_outputs_keep_their_distance():
    # Reading byte i and writing bytes 4 i .. 4 i + 3: the output starts three input sizes earlier.
    assert CALLS["dequantize"].overlap == (3 * CODES.size,)
    assert CALLS["quantize"].overlap == (0,)


def test_equal_operators_share_a_function():
    again = lowered(*CASES["conv2d"])
    assert again.function == CALLS["conv2d"].function
    assert again.source == CALLS["conv2d"].source
    assert CALLS["tanh"].function != CALLS["gelu"].function


def test_no_intermediate_image_for_padding():
    assert CALLS["conv2d"].scratch == 0
    assert CALLS["resize2d"].scratch == 0


def test_large_intermediates_are_scratch():
    wide = RNG.normal(size=(1, 300)).astype(np.float32)
    call = lowered(wide, op.nn.softmax)
    assert call.scratch == 1200
    result = Probe([call], get_target("c")).run(0, [wide]).outputs[0]
    exponentials = np.exp(wide - wide.max())
    np.testing.assert_allclose(result, exponentials / exponentials.sum(), rtol=1e-5)


def test_needs_no_c_library():
    for call in CALLS.values():
        assert call.source.count("#include") == 1
        assert call.source.startswith('#include "tir.h"\n')


def test_softmax_over_channels_needs_no_image():
    image = RNG.normal(size=(1, 4, 40, 40)).astype(np.float32)
    assert lowered(image, lambda x: op.nn.softmax(x, 1)).scratch == 0


def test_multiply_accumulates_are_counted():
    (output,) = CALLS["conv2d"].outputs
    assert CALLS["conv2d"].macs == np.prod(output.shape) * 3 * 3 * 3
    assert CALLS["tanh"].macs == 0
