import numpy as np
import pytest
from fewbits.passes.canonicalize import FoldAffine
from tvm import relax
from tvm.relax import op


@pytest.fixture
def batch_norm(reals, const, rng):
    def make(steps, x, channels, name, axis=1):
        statistics = [reals(channels) for _ in range(3)]
        variance = const(rng.uniform(0.2, 2, channels))
        call = op.nn.batch_norm(x, *statistics, variance, axis=axis, training=False)
        return steps(relax.TupleGetItem(steps(call, f"{name} tuple"), 0), name)

    return make


def shapes_of_constants(module, operator):
    for binding in module["main"].body.blocks[0].bindings:
        if getattr(getattr(binding.value, "op", None), "name", "") == operator:
            return [
                tuple(int(d) for d in a.ty.shape.values)
                for a in binding.value.args
                if not isinstance(a, relax.Var)
            ]
    raise AssertionError(operator)


def test_bias_scale_and_batch_norm_go_into_the_convolution(
    build, apply, operators, reals, const, batch_norm
):
    def model(steps, x):
        y = steps(op.nn.conv2d(x, reals(6, 3, 3, 3), padding=[1, 1, 1, 1]), "conv")
        y = steps(op.add(reals(1, 6, 1, 1), y), "bias")
        y = batch_norm(steps, y, 6, "bn")
        y = steps(op.divide(steps(op.negative(y), "minus"), const(3.0)), "third")
        return steps(op.nn.relu(steps(op.subtract(const(1.0), y), "flip")), "relu")

    after = apply(FoldAffine(), build(model, x=(1, 3, 8, 8)))
    assert operators(after) == ["nn.conv2d", "add", "nn.relu"]
    assert shapes_of_constants(after, "relax.add") == [(1, 6, 1, 1)]


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_and_grouped_convolutions(groups, build, apply, operators, reals, batch_norm):
    def model(steps, x):
        up = op.nn.conv2d_transpose(x, reals(4, 6 // groups, 2, 2), strides=[2, 2], groups=groups)
        y = batch_norm(steps, steps(up, "up"), 6, "bn")
        y = steps(op.nn.conv2d(y, reals(6, 6 // groups, 3, 3), groups=groups), "conv")
        return steps(op.multiply(y, reals(6, 1, 1)), "scaled")

    after = apply(FoldAffine(), build(model, x=(1, 4, 5, 5)))
    assert operators(after) == ["nn.conv2d_transpose", "add", "nn.conv2d"]


def test_dense_layers_and_their_bias(build, apply, operators, reals, batch_norm):
    def model(steps, x):
        y = steps(op.matmul(x, reals(5, 7)), "dense")
        y = steps(op.add(y, reals(1, 7)), "bias")
        return batch_norm(steps, y, 7, "bn")

    after = apply(FoldAffine(), build(model, x=(2, 5)))
    assert operators(after) == ["matmul", "add"]
    assert shapes_of_constants(after, "relax.add") == [(7,)]


def test_what_stands_before_goes_in_where_nothing_is_padded(
    build, apply, operators, reals, batch_norm
):
    def model(steps, x):
        y = batch_norm(steps, x, 4, "bn 1")
        y = steps(op.nn.relu(steps(op.nn.conv2d(y, reals(4, 2, 3, 3), groups=2), "a")), "relu")
        y = batch_norm(steps, y, 4, "bn 2")
        return steps(op.nn.conv2d(y, reals(3, 4, 3, 3), padding=[1, 1, 1, 1]), "b")

    after = build(model, x=(1, 4, 9, 9))
    for _ in range(2):
        after = FoldAffine().apply(after, None)
    # The second scale goes in, its shift meets padding.
    assert operators(after)[:3] == ["nn.conv2d", "add", "nn.relu"]
    assert "nn.batch_norm" not in operators(after)
    apply(FoldAffine(), after)


def test_a_scale_before_padding_goes_in(build, apply, operators, reals):
    def model(steps, x):
        y = steps(op.multiply(x, reals(1, 3, 1, 1)), "scaled")
        return steps(op.nn.conv2d(y, reals(5, 3, 3, 3), padding=[1, 1, 1, 1]), "conv")

    assert operators(apply(FoldAffine(), build(model, x=(1, 3, 6, 6)))) == ["nn.conv2d"]


def test_a_value_with_other_users_stays(build, reals):
    def model(steps, x):
        y = steps(op.nn.conv2d(x, reals(5, 3, 3, 3)), "conv")
        return steps(op.multiply(y, reals(5, 1, 1)), "scaled"), y

    module = build(model, x=(1, 3, 6, 6))
    assert FoldAffine().apply(module, None) is module


def test_constants_that_vary_over_the_image_stay(build, reals):
    def model(steps, x):
        y = steps(op.nn.conv2d(x, reals(5, 3, 3, 3)), "conv")
        return steps(op.add(y, reals(1, 1, 4, 4)), "positions")

    module = build(model, x=(1, 3, 6, 6))
    assert FoldAffine().apply(module, None) is module


def test_a_lonely_batch_norm_becomes_arithmetic(build, apply, operators, batch_norm):
    module = build(lambda s, x: batch_norm(s, s(op.exp(x), "e"), 3, "bn"), x=(1, 3, 4, 4))
    assert operators(apply(FoldAffine(), module)) == ["exp", "multiply", "add"]


def test_training_mode_is_not_folded(build, reals, operators):
    def model(steps, x):
        call = op.nn.batch_norm(x, reals(3), reals(3), reals(3), reals(3), axis=1, training=True)
        return steps(relax.TupleGetItem(steps(call, "tuple"), 0), "bn")

    module = build(model, x=(4, 3, 4, 4))
    assert FoldAffine().apply(module, None) is module


def test_zero_padding_joins_convolutions_and_pools(build, apply, operators, reals):
    pads = [0, 0, 0, 0, 1, 0, 2, 1]

    def model(steps, x):
        y = steps(op.nn.pad(x, pads), "pad 1")
        y = steps(op.nn.conv2d(y, reals(3, 3, 3, 3), padding=[0, 1, 0, 0]), "conv")
        y = steps(op.nn.pad(steps(op.nn.relu(y), "relu"), pads), "pad 2")
        y = steps(op.nn.max_pool2d(y, (3, 3), (2, 2)), "max")
        y = steps(op.nn.pad(y, pads), "pad 3")
        return steps(op.nn.avg_pool2d(y, (3, 3), (2, 2)), "mean")

    after = apply(FoldAffine(), build(model, x=(1, 3, 9, 9)))
    assert operators(after) == ["nn.conv2d", "nn.relu", "nn.max_pool2d", "nn.avg_pool2d"]


@pytest.mark.parametrize("case", ["value", "channels", "maximum of negatives", "counted twice"])
def test_padding_that_means_something_stays(case, build, reals):
    def model(steps, x):
        if case == "value":
            y = steps(op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_value=1.0), "pad")
            return steps(op.nn.conv2d(y, reals(3, 3, 3, 3)), "conv")
        if case == "channels":
            y = steps(op.nn.pad(x, [0, 0, 1, 0, 0, 0, 0, 0]), "pad")
            return steps(op.nn.conv2d(y, reals(3, 4, 3, 3)), "conv")
        y = steps(op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1]), "pad")
        if case == "maximum of negatives":
            return steps(op.nn.max_pool2d(y, (3, 3)), "max")
        return steps(op.nn.avg_pool2d(y, (3, 3), padding=(1, 1)), "mean")

    module = build(model, x=(1, 3, 9, 9))
    assert FoldAffine().apply(module, None) is module


def test_weights_stay_float32(build, reals, batch_norm):
    module = build(
        lambda s, x: batch_norm(s, s(op.nn.conv2d(x, reals(2, 3, 1, 1)), "c"), 2, "b"),
        x=(1, 3, 2, 2),
    )
    after = FoldAffine().apply(module, None)
    assert np.dtype(str(after["main"].ret_ty.dtype)) == np.float32
