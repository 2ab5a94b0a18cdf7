"""Zero filters go, and everything that carried their channels; the result stays."""

import numpy as np
import pytest
from fewbits.passes.base import PassContext
from fewbits.passes.canonicalize import DeadChannels
from fewbits.passes.macs import macs
from tvm import relax
from tvm.relax import op


@pytest.fixture
def weights(rng, const):
    """Random weights with zero filters: ``weights(8, 3, 3, 3, dead=[1, 5])``."""

    def make(*shape, dead=(), axis=0):
        array = rng.normal(size=shape)
        index = [slice(None)] * len(shape)
        index[axis] = list(dead)
        array[tuple(index)] = 0
        return const(array)

    return make


@pytest.fixture
def bias(rng, const):
    """A bias that is negative where a channel is to die in a ReLU."""

    def make(channels, negative=(), positive=()):
        array = rng.normal(size=(1, channels, 1, 1))
        array[:, list(negative)] = -1
        array[:, list(positive)] = 2
        return const(array)

    return make


def channels(module, name):
    for binding in module["main"].body.blocks[0].bindings:
        if binding.var.name == name:
            return int(binding.var.ty.shape.values[1])
    raise AssertionError(name)


def test_a_separable_block(build, apply, weights, bias):
    """Zero filters die in ReLU; depthwise and next layer lose them; a bias of the second block
    that survives its ReLU is taken into the dense layer's bias."""

    def model(steps, x):
        y = steps(op.nn.conv2d(x, weights(8, 3, 3, 3, dead=[1, 5]), padding=[1] * 4), "a conv")
        y = steps(op.nn.relu(steps(op.add(y, bias(8, [1, 5])), "a bias")), "a")
        y = steps(op.nn.conv2d(y, weights(8, 1, 3, 3, dead=[2]), groups=8, padding=[1] * 4), "b dw")
        y = steps(op.nn.relu(steps(op.add(y, bias(8, [1, 2], [5])), "b bias")), "b")
        y = steps(op.nn.conv2d(y, weights(6, 8, 1, 1, dead=[3])), "c conv")
        y = steps(op.clip(steps(op.add(y, bias(6, [], [3])), "c bias"), 0.0, 6.0), "c")
        y = steps(op.nn.avg_pool2d(y, (8, 8)), "pool")
        return steps(op.matmul(steps(op.reshape(y, (1, 6)), "flat"), weights(6, 4)), "dense")

    context = PassContext()
    after = apply(DeadChannels(), build(model, x=(1, 3, 8, 8)), 1e-6, context)
    assert channels(after, "a") == channels(after, "b") == 5
    assert channels(after, "c") == 5
    assert [(note.layer, note.data["removed"]) for note in context.notes] == [
        ("a conv", 3),
        ("c conv", 1),
    ]


def test_a_constant_does_not_pass_padding(build, apply, weights, bias):
    """A zero filter with a positive bias, before a padded 3x3 convolution: it stays."""

    def model(padding):
        def make(steps, x):
            y = steps(op.nn.conv2d(x, weights(4, 3, 1, 1, dead=[2])), "conv")
            y = steps(op.nn.relu(steps(op.add(y, bias(4, [], [2])), "bias")), "relu")
            return steps(op.nn.conv2d(y, weights(5, 4, 3, 3), padding=[padding] * 4), "next")

        return build(make, x=(1, 3, 6, 6))

    padded, plain = model(1), model(0)
    assert DeadChannels().apply(padded, PassContext()) is padded
    after = apply(DeadChannels(), plain, 1e-6)
    assert channels(after, "relu") == 3


def test_channels_that_nobody_reads(build, apply, weights, bias):
    def model(steps, x):
        y = steps(op.nn.conv2d(x, weights(8, 3, 3, 3)), "first")
        y = steps(op.nn.leakyrelu(steps(op.add(y, bias(8)), "bias"), 0.1), "leaky")
        return steps(op.nn.conv2d(y, weights(4, 8, 1, 1, dead=[0, 7], axis=1)), "second")

    after = apply(DeadChannels(), build(model, x=(1, 3, 6, 6)), 1e-6)
    assert channels(after, "leaky") == 6


def test_a_residual_addition_keeps_what_either_side_needs(build, apply, weights):
    def model(steps, x):
        stem = steps(op.nn.conv2d(x, weights(6, 3, 1, 1, dead=[0, 1])), "stem")
        branch = steps(op.nn.conv2d(stem, weights(6, 6, 3, 3, dead=[1, 2]), padding=[1] * 4), "br")
        total = steps(op.nn.relu(steps(op.add(stem, branch), "add")), "relu")
        return steps(op.nn.conv2d(total, weights(2, 6, 1, 1)), "head")

    after = apply(DeadChannels(), build(model, x=(1, 3, 6, 6)), 1e-6)
    # 1 is dead on both sides; 0 and 2 on one side only.
    assert channels(after, "stem") == channels(after, "br") == 5


def test_through_flatten_concat_and_channel_order(build, apply, weights, bias):
    def model(steps, x):
        a = steps(op.nn.relu(steps(op.nn.conv2d(x, weights(4, 3, 1, 1, dead=[3])), "a conv")), "a")
        b = steps(op.nn.relu(steps(op.nn.conv2d(x, weights(5, 3, 1, 1, dead=[0])), "b conv")), "b")
        both = steps(op.concat([a, x, b], 1), "both")
        last = steps(op.permute_dims(both, [0, 2, 3, 1]), "last")
        first = steps(op.permute_dims(last, [0, 3, 1, 2]), "first")
        flat = steps(op.reshape(first, (1, 48)), "flat")
        return steps(op.matmul(flat, weights(48, 3)), "dense")

    after = apply(DeadChannels(), build(model, x=(1, 3, 2, 2)), 1e-6)
    assert channels(after, "both") == 3 + 3 + 4
    assert channels(after, "flat") == 40


def test_dense_layers(build, apply, weights, const, rng):
    def model(steps, x):
        y = steps(op.matmul(x, weights(6, 8, dead=[2, 3], axis=1)), "one")
        y = steps(op.tanh(steps(op.add(y, const(rng.normal(size=8))), "bias")), "tanh")
        return steps(op.matmul(y, weights(8, 2)), "two")

    after = apply(DeadChannels(), build(model, x=(4, 6)), 1e-6)
    assert channels(after, "tanh") == 6
    assert sum(macs(after).values()) == 4 * 6 * 6 + 4 * 6 * 2


def test_few_bit_weights_lose_codes_and_scales(build, apply, operators, const, rng):
    def quantized(steps, name, shape, dead):
        codes = rng.integers(1, 100, shape)
        codes[dead] = 0
        arguments = (const(codes, "int8"), const(rng.uniform(0.01, 0.02, shape[0])))
        zero = const(np.zeros(shape[0]), "int8")
        return steps(op.dequantize(*arguments, zero, 0), name)

    def model(steps, x):
        y = steps(op.nn.conv2d(x, quantized(steps, "w1", (6, 3, 1, 1), [1, 4])), "conv")
        codes = const(np.full((1, 6, 1, 1), -3), "int32")
        shift = steps(op.dequantize(codes, const(0.1), const(0, "int32"), 0), "b1")
        y = steps(op.nn.relu(steps(op.add(y, shift), "bias")), "relu")
        y = steps(op.quantize(y, const(0.05), const(-128, "int8")), "q")
        y = steps(op.dequantize(y, const(0.05), const(-128, "int8")), "dq")
        return steps(op.nn.conv2d(y, quantized(steps, "w2", (4, 6, 3, 3), [])), "next")

    after = apply(DeadChannels(), build(model, x=(1, 3, 6, 6)), 1e-6)
    assert channels(after, "dq") == 4
    assert operators(after).count("dequantize") == 4


@pytest.mark.parametrize("blocker", ["output", "softmax", "grouped", "matmul"])
def test_what_reads_channels_otherwise_keeps_them(blocker, build, weights):
    def model(steps, x):
        y = steps(op.nn.conv2d(x, weights(4, 4, 1, 1, dead=[1])), "conv")
        z = steps(op.nn.conv2d(y, weights(3, 4, 1, 1)), "next")
        if blocker == "output":
            return y, z
        if blocker == "softmax":
            return steps(op.nn.softmax(y, 1), "soft"), z
        if blocker == "grouped":
            return steps(op.nn.conv2d(y, weights(4, 2, 1, 1), groups=2), "grouped"), z
        return steps(op.matmul(y, y), "square"), z

    module = build(model, x=(1, 4, 4, 4))
    assert DeadChannels().apply(module, PassContext()) is module


def test_a_layer_that_is_all_dead_keeps_one_channel(build, apply, weights):
    def model(steps, x):
        y = steps(op.nn.relu(steps(op.nn.conv2d(x, weights(4, 3, 1, 1, dead=range(4))), "c")), "r")
        return steps(op.nn.conv2d(y, weights(2, 4, 1, 1)), "next")

    after = DeadChannels().apply(build(model, x=(1, 3, 4, 4)), PassContext())
    assert channels(after, "r") == 1
    assert DeadChannels().apply(after, PassContext()) is after


def test_spatial_gates_and_channel_gates(build, apply, weights):
    """Squeeze and excitation: the gate's channels are the gated value's channels."""

    def model(steps, x):
        y = steps(op.nn.relu(steps(op.nn.conv2d(x, weights(6, 3, 1, 1, dead=[2])), "conv")), "y")
        mean = steps(op.mean(y, [2, 3], True), "mean")
        inner = steps(op.nn.relu(steps(op.nn.conv2d(mean, weights(3, 6, 1, 1)), "down")), "inner")
        gate = steps(op.sigmoid(steps(op.nn.conv2d(inner, weights(6, 3, 1, 1)), "up")), "gate")
        where = steps(op.strided_slice(x, [1], [0], [1]), "where")
        gated = steps(op.multiply(steps(op.multiply(y, gate), "gated"), where), "placed")
        return steps(op.nn.conv2d(gated, weights(2, 6, 1, 1)), "head")

    after = apply(DeadChannels(), build(model, x=(1, 3, 4, 4)), 1e-6)
    assert channels(after, "gate") == channels(after, "placed") == 5


def test_values_around_1e_30_count_as_zero(build, apply, weights, const, rng):
    filters = rng.normal(size=(4, 3, 1, 1))
    filters[1] = 1e-30

    def model(steps, x):
        y = steps(op.nn.relu(steps(op.nn.conv2d(x, const(filters)), "c")), "r")
        return steps(op.nn.conv2d(y, weights(2, 4, 1, 1)), "next")

    assert channels(apply(DeadChannels(), build(model, x=(1, 3, 4, 4)), 1e-6), "r") == 3


def test_names_stay(build, weights):
    def model(steps, x):
        y = steps(op.nn.relu(steps(op.nn.conv2d(x, weights(4, 3, 1, 1, dead=[0])), 'c"1\n')), "ü")
        return steps(op.nn.conv2d(y, weights(2, 4, 1, 1)), "*/")

    after = DeadChannels().apply(build(model, x=(1, 3, 4, 4)), PassContext())
    bindings = after["main"].body.blocks[0].bindings
    assert [binding.var.name for binding in bindings] == ['c"1\n', "ü", "*/"]
    assert isinstance(bindings[0].value, relax.Call)
