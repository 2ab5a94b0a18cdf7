import numpy as np
from fewbits.passes.canonicalize import FoldConstants, Simplify
from tvm import relax
from tvm.relax import op


def test_calls_on_constants_become_constants(build, apply, operators, const):
    def model(steps, x):
        scale = steps(op.exp(const([1.0, 2.0])), "scale")
        twice = steps(op.multiply(scale, scale), "twice")
        parts = steps(op.split(twice, 2, 0), "parts")
        first = steps(relax.TupleGetItem(parts, 0), "first")
        return steps(op.add(x, first), "sum")

    after = model_after = build(model, x=(1, 2))
    for _ in range(3):
        model_after = FoldConstants().apply(model_after, None)
    assert operators(model_after) == ["add"]
    assert operators(after) == ["exp", "multiply", "split", "add"]
    apply(FoldConstants(), model_after)


def test_a_large_broadcast_is_not_stored(build, apply, operators, const):
    def model(steps, x):
        big = steps(op.full((1000, 1000), const(2.0), "float32"), "big")
        small = steps(op.full((10,), const(2.0), "float32"), "small")
        return steps(op.add(steps(op.sum(big), "sum"), steps(op.add(x, small), "add")), "out")

    after = apply(FoldConstants(), build(model, x=(10,)))
    assert operators(after).count("full") == 1


def test_a_few_bit_weight_stays_and_its_movements_move_the_codes(build, apply, operators, const):
    codes = const(np.arange(-6, 6).reshape(3, 4), "int8")
    scale, zero = const([0.5, 1.0, 2.0]), const([0, 1, 2], "int8")

    def model(steps, x):
        weight = steps(op.dequantize(codes, scale, zero, 0), "weight")
        turned = steps(op.permute_dims(weight), "turned")
        return steps(op.matmul(x, turned), "product")

    after = apply(FoldConstants(), build(model, x=(2, 4)), tolerance=1e-7)
    assert operators(after) == ["dequantize", "matmul"]
    call = after["main"].body.blocks[0].bindings[0].value
    assert tuple(int(d) for d in call.args[0].ty.shape.values) == (4, 3)
    assert call.attrs.axis == 1


def test_a_reshape_across_the_quantized_axis_stays(build, apply, operators, const):
    codes = const(np.arange(12).reshape(3, 4), "int8")
    scale, zero = const([0.5, 1.0, 2.0]), const([0, 0, 0], "int8")

    def model(steps, x):
        weight = steps(op.dequantize(codes, scale, zero, 0), "weight")
        return steps(op.add(x, steps(op.reshape(weight, (2, 6)), "reshaped")), "sum")

    assert "reshape" in operators(apply(FoldConstants(), build(model, x=(2, 6))))


def test_a_constant_output_stays_a_variable(build, apply, operators, const):
    module = build(lambda steps, x: steps(op.exp(const([1.0])), "e"), x=(1,))
    assert operators(apply(FoldConstants(), module)) == ["exp"]
    assert Simplify().apply(module, None) is module
