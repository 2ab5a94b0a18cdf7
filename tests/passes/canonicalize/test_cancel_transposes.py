import numpy as np
from fewbits.passes.canonicalize import CancelTransposes, Simplify
from fewbits.passes.canonicalize.cancel_transposes import elements_moved
from tvm import relax
from tvm.relax import op

FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def test_a_channels_last_chain_loses_all_but_its_ends(build, apply, operators, reals):
    """What an exporter leaves of conv, bias, relu, conv, residual addition in channels last."""

    def conv(steps, x, name):
        x = steps(op.permute_dims(x, FIRST), f"{name} in")
        x = steps(op.nn.conv2d(x, reals(4, 4, 3, 3), padding=[1, 1, 1, 1]), name)
        x = steps(op.permute_dims(x, LAST), f"{name} out")
        return steps(op.nn.relu(steps(op.add(x, reals(4)), f"{name} bias")), f"{name} relu")

    def model(steps, x):
        a = conv(steps, x, "a")
        b = conv(steps, a, "b")
        return steps(op.nn.softmax(steps(op.add(a, b), "sum"), -1), "softmax")

    after = apply(CancelTransposes(), build(model, x=(1, 6, 5, 4)))
    names = operators(after)
    assert names[0] == "permute_dims"
    assert names[-1] == "permute_dims"
    assert names.count("permute_dims") == 2
    softmax = after["main"].body.blocks[0].bindings[-2].value
    assert softmax.attrs.axis == 1


def test_every_operator_that_minds_no_order_lets_it_pass(build, apply, operators, reals, const):
    def model(steps, x):
        y = steps(op.permute_dims(x, LAST), "down")
        y = steps(op.nn.pad(y, [0, 0, 1, 0, 0, 2, 3, 0], pad_value=1.0), "pad")
        y = steps(op.concat([y, y], 3), "concat")
        y = steps(op.strided_slice(y, [-1, 1], [1, 0], [9, 4], [2, 1]), "slice")
        parts = steps(op.split(y, 2, 3), "split")
        y = steps(relax.TupleGetItem(parts, 1), "part")
        y = steps(op.nn.prelu(y, reals(2), 3), "prelu")
        y = steps(op.quantize(y, const([0.1, 0.2]), const([0, 3], "int8"), 3), "q")
        y = steps(op.dequantize(y, const([0.1, 0.2]), const([0, 3], "int8"), 3), "dq")
        y = steps(op.reshape(y, (4, 1, 10, 2)), "shape")
        y = steps(op.mean(y, [0], True), "mean")
        y = steps(op.reshape(y, (1, 1, 10, 2)), "shape 2")
        return steps(op.permute_dims(y, FIRST), "up")

    after = apply(CancelTransposes(), build(model, x=(1, 3, 4, 8)))
    assert elements_moved(after) == 0
    assert "permute_dims" not in operators(Simplify().apply(after, None))


def test_reductions_that_drop_axes(build, apply, operators):
    def model(steps, x):
        y = steps(op.permute_dims(x, LAST), "down")
        return steps(op.sum(y, [1, 2]), "sum")

    assert operators(apply(CancelTransposes(), build(model, x=(2, 3, 4, 5)))) == ["sum"]


def test_a_flattened_transposition_moves_the_rows_of_the_weights(build, apply, operators, const):
    codes = const(np.random.default_rng(0).integers(-9, 9, (60, 7)), "int8")

    def model(steps, x):
        y = steps(op.permute_dims(x, LAST), "last")
        flat = steps(op.reshape(y, (1, 60)), "flat")
        weight = steps(op.dequantize(codes, const([0.5] * 7), const([0] * 7, "int8"), 1), "w")
        return steps(op.matmul(flat, weight), "dense")

    after = apply(CancelTransposes(), build(model, x=(1, 3, 4, 5)))
    assert sorted(operators(after)) == ["dequantize", "matmul", "reshape"]


def test_nothing_is_moved_for_nothing(build):
    def model(steps, x):
        y = steps(op.permute_dims(x, LAST), "y")
        return steps(op.nn.relu(y), "a"), steps(op.exp(y), "b")

    module = build(model, x=(1, 3, 4, 5))
    assert CancelTransposes().apply(module, None) is module


def test_a_shared_transposition_is_written_once(build, apply, operators, reals):
    def model(steps, x):
        y = steps(op.permute_dims(x, LAST), "y")
        back = steps(op.permute_dims(steps(op.nn.relu(y), "relu"), FIRST), "back")
        return steps(op.matmul(y, reals(3, 2)), "a"), steps(op.matmul(y, reals(3, 4)), "b"), back

    after = apply(CancelTransposes(), build(model, x=(1, 3, 4, 5)))
    assert operators(after).count("permute_dims") == 1


def test_transpositions_of_ones_are_reshapes_elsewhere(build, operators):
    module = build(lambda s, x: s(op.permute_dims(x, LAST), "y"), x=(1, 1, 4, 5))
    assert operators(Simplify().apply(module, None)) == ["reshape"]
