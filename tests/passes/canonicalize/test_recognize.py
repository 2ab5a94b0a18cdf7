import math

import numpy as np
import pytest
from fewbits.passes.canonicalize import Recognize
from tvm.relax import op

GELU = {
    "x/√2, scaled last": lambda x, c, s: op.multiply(
        op.multiply(x, op.add(op.erf(op.divide(x, c(math.sqrt(2)))), c(1.0))), c(0.5)
    ),
    "half first": lambda x, c, s: op.multiply(
        op.multiply(c(0.5), x), op.add(c(1.0), op.erf(op.multiply(x, c(math.sqrt(0.5)))))
    ),
    "half of the gate": lambda x, c, s: op.multiply(
        x, op.multiply(op.add(op.erf(op.divide(x, c(math.sqrt(2)))), c(1.0)), c(0.5))
    ),
    "divided by two": lambda x, c, s: op.divide(
        op.multiply(x, op.add(op.erf(op.divide(x, c(math.sqrt(2)))), c(1.0))), c(2.0)
    ),
}
K = math.sqrt(2 / math.pi)
GELU_TANH = {
    "power": lambda x, c, s: op.multiply(
        op.multiply(x, c(0.5)),
        op.add(
            op.tanh(op.multiply(op.add(x, op.multiply(op.power(x, c(3.0)), c(0.044715))), c(K))),
            c(1.0),
        ),
    ),
    "factored": lambda x, c, s: op.multiply(
        op.multiply(c(0.5), x),
        op.add(
            c(1.0),
            op.tanh(
                op.multiply(
                    op.multiply(x, c(K)),
                    op.add(c(1.0), op.multiply(op.multiply(c(0.044715), x), x)),
                )
            ),
        ),
    ),
}


@pytest.fixture
def spelled(build, const):
    """A module of one nested expression, taken apart by the builder."""
    return lambda make, shape=(2, 5, 8): build(lambda s, x: s(make(x, const, s), "y"), x=shape)


@pytest.mark.parametrize("spelling", list(GELU))
def test_gelu(spelling, spelled, apply, operators):
    assert operators(apply(Recognize(), spelled(GELU[spelling]))) == ["nn.gelu"]


@pytest.mark.parametrize("spelling", list(GELU_TANH))
def test_gelu_tanh(spelling, spelled, apply, operators):
    assert operators(apply(Recognize(), spelled(GELU_TANH[spelling]))) == ["nn.gelu_tanh"]


def test_almost_gelu_is_not_gelu(spelled, operators):
    def other(x, c, _steps):
        return op.multiply(op.multiply(x, op.add(op.erf(op.divide(x, c(1.5))), c(1.0))), c(0.5))

    assert "nn.gelu" not in operators(Recognize().apply(spelled(other), None))


def test_silu(spelled, apply, operators):
    module = spelled(lambda x, c, s: op.multiply(op.sigmoid(x), x))
    assert operators(apply(Recognize(), module)) == ["nn.silu"]


def layer_norm(square, root):
    def make(x, c, steps):
        centered = steps(op.subtract(x, op.mean(x, [-1], True)), "centered")
        variance = op.add(op.mean(square(centered, c), [-1], True), c(1e-3))
        return root(centered, variance, c)

    return make


SQUARES = {
    "power": lambda d, c: op.power(d, c(2.0)),
    "product": lambda d, c: op.multiply(d, d),
    "square": lambda d, c: op.square(d),
}
ROOTS = {
    "divided by sqrt": lambda d, v, c: op.divide(d, op.sqrt(v)),
    "times rsqrt": lambda d, v, c: op.multiply(op.rsqrt(v), d),
    "times reciprocal": lambda d, v, c: op.multiply(d, op.divide(c(1.0), op.sqrt(v))),
    "power": lambda d, v, c: op.multiply(d, op.power(v, c(-0.5))),
}


@pytest.mark.parametrize("square", list(SQUARES))
@pytest.mark.parametrize("root", list(ROOTS))
def test_layer_norm_with_scale_and_shift(square, root, build, const, reals, operators, outputs):
    def model(steps, x):
        normal = steps(layer_norm(SQUARES[square], ROOTS[root])(x, const, steps), "normal")
        scaled = steps(op.multiply(normal, reals(8)), "scaled")
        return steps(op.add(reals(8), scaled), "shifted")

    module = build(model, x=(2, 5, 8))
    after = module
    for _ in range(3):
        after = Recognize().apply(after, None)
    assert operators(after) == ["nn.layer_norm"]
    np.testing.assert_allclose(
        outputs(after)["output 0"], outputs(module)["output 0"], rtol=1e-4, atol=1e-5
    )


def test_rms_norm(build, const, reals, operators, outputs):
    def model(steps, x):
        power = op.add(op.mean(op.multiply(x, x), [2], True), const(1e-5))
        normal = steps(op.multiply(x, op.rsqrt(power)), "normal")
        return steps(op.multiply(reals(8), normal), "scaled")

    module = build(model, x=(2, 5, 8))
    after = Recognize().apply(Recognize().apply(module, None), None)
    assert operators(after) == ["nn.rms_norm"]
    np.testing.assert_allclose(
        outputs(after)["output 0"], outputs(module)["output 0"], rtol=1e-4, atol=1e-5
    )


def test_a_norm_over_a_leading_axis_stays(build, const, operators):
    def model(steps, x):
        power = op.add(op.mean(op.multiply(x, x), [1], True), const(1e-5))
        return steps(op.multiply(x, op.rsqrt(power)), "normal")

    module = build(model, x=(2, 5, 8))
    assert Recognize().apply(module, None) is module
