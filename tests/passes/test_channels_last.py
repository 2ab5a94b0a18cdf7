"""Transpositions around channels-last operators cancel, and nothing changes its meaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits.ops.evaluate import Evaluator
from fewbits.ops.registry import make_call
from fewbits.passes.channels_last import channels_last
from fewbits.passes.rewrite import Rewriter, assemble, constant, operator_of
from tvm import relax

RNG = np.random.default_rng(3)


class Builder:
    """Writes an integer module binding by binding."""

    def __init__(self, *shapes):
        self.parameters = [
            relax.Var(f"x{i}", relax.TensorType(shape, "int8")) for i, shape in enumerate(shapes)
        ]
        self.bindings = []
        self.builder = relax.BlockBuilder()

    def bind(self, value, name):
        value = self.builder.normalize(value)
        var = relax.DataflowVar(name, value.ty)
        self.bindings.append((var, value))
        return var

    def permute(self, x, *axes):
        return self.bind(relax.op.permute_dims(x, list(axes)), f"p{len(self.bindings)}")

    def emit(self, operator, arguments, name, **attrs):
        call = make_call(operator, arguments, **attrs, scale=1.0, zero_point=0, stands_for="")
        return self.bind(call, name)

    def lookup(self, x):
        table = RNG.integers(-128, 128, 256).astype("int8")
        return self.emit("fewbits.lookup", [x, constant(table)], f"l{len(self.bindings)}")

    def add(self, a, b):
        return self.emit(
            "fewbits.add", [a, b], f"a{len(self.bindings)}", a_multiplier=300, b_multiplier=-500,
            bias=77, shift=9, minimum=-120, maximum=125,
        )  # fmt: skip

    def module(self, *results):
        attributes = {
            "input_names": [p.name for p in self.parameters],
            "output_names": [f"y{i}" for i in range(len(results))],
        }
        result = relax.Tuple(list(results)) if len(results) > 1 else results[0]
        return assemble(self.parameters, self.bindings, result, attributes)


def transformed(module):
    """The operators after the pass, which must not change a bit."""
    after = channels_last(module)
    inputs = {
        p.name: torch.from_numpy(
            RNG.integers(-128, 128, [int(d) for d in p.ty.shape.values]).astype("int8")
        )
        for p in module["main"].params
    }
    want, got = Evaluator(module)(inputs), Evaluator(after)(inputs)
    for name, value in want.items():
        assert torch.equal(got[name], value)
    return [op for _, v in Rewriter(after).bindings if (op := operator_of(v))]


TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
SHAPE = (1, 4, 5, 3)


def test_a_sandwich_cancels():
    b = Builder((1, 5, 3, 4))
    y = b.permute(b.lookup(b.permute(b.parameters[0], *TO_FIRST)), *TO_LAST)
    assert transformed(b.module(y)) == ["fewbits.lookup"]


def test_what_the_caller_sees_keeps_its_order():
    b = Builder(SHAPE)
    y = b.permute(b.lookup(b.permute(b.parameters[0], *TO_LAST)), 0, 1, 3, 2)
    assert transformed(b.module(y)).count("relax.permute_dims") == 1


def test_sums_of_equally_permuted_values():
    b = Builder((1, 5, 3, 4), (1, 5, 3, 4))
    one, two = (b.permute(p, *TO_FIRST) for p in b.parameters)
    assert transformed(b.module(b.permute(b.add(one, two), *TO_LAST))) == ["fewbits.add"]


@pytest.mark.parametrize("other", [(4, 5, 3), (1, 4, 5, 3), (1, 4, 1, 1), (5, 3), (3,)])
def test_sums_with_values_in_another_order(other):
    b = Builder((1, 5, 3, 4), other)
    one = b.permute(b.parameters[0], *TO_FIRST)
    transformed(b.module(b.permute(b.add(one, b.parameters[1]), *TO_LAST)))


def test_sum_with_a_permuted_value_of_lower_rank():
    b = Builder((2, 5, 4, 3), (3, 4, 5))
    small = b.permute(b.parameters[1], 2, 1, 0)
    transformed(b.module(b.add(b.parameters[0], small)))


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 5, 3), (3,), ()])
def test_sums_with_constants(shape):
    b = Builder((1, 5, 3, 4))
    one = b.permute(b.parameters[0], *TO_FIRST)
    two = constant(RNG.integers(-128, 128, shape).astype("int8"))
    y = b.permute(b.add(one, two), *TO_LAST)
    assert transformed(b.module(y)) == ["fewbits.add"]


def test_concat_pad_and_slice_follow():
    b = Builder((1, 5, 3, 4), (1, 5, 3, 2))
    one, two = (b.permute(p, *TO_FIRST) for p in b.parameters)
    joined = b.bind(relax.op.concat([one, two], 1), "c")
    padded = b.bind(relax.op.nn.pad(joined, [0, 0, 1, 0, 0, 2, 3, 1], "constant", 7.0), "d")
    cut = b.bind(relax.op.strided_slice(padded, [1, 3], [1, 6], [6, 0], [2, -2]), "e")
    found = transformed(b.module(b.permute(cut, *TO_LAST)))
    assert "relax.permute_dims" not in found


def test_concat_of_different_orders():
    b = Builder((1, 5, 3, 4), (1, 2, 5, 3))
    one = b.permute(b.parameters[0], *TO_FIRST)
    transformed(b.module(b.bind(relax.op.concat([one, b.parameters[1]], 1), "c")))


def dense(b, x, inputs):
    weight = RNG.integers(-127, 128, (6, inputs)).astype("int8")
    bias = RNG.integers(-(2**20), 2**20, 6).astype("int32")
    multiplier = np.full(6, 2**21, "int32")
    return b.emit(
        "fewbits.dense", [x, constant(weight), constant(bias), constant(multiplier)],
        f"d{len(b.bindings)}", shift=0, minimum=-128, maximum=127,
    )  # fmt: skip


def test_flatten_folds_into_the_weights_of_a_dense_layer():
    b = Builder((1, 5, 3, 4))
    one = b.permute(b.parameters[0], *TO_FIRST)
    flat = b.bind(relax.op.reshape(one, [1, 60]), "f")
    assert transformed(b.module(dense(b, flat, 60))) == ["relax.reshape", "fewbits.dense"]


def test_a_flattened_value_with_another_user_too():
    b = Builder((1, 5, 3, 4))
    one = b.permute(b.parameters[0], *TO_FIRST)
    flat = b.bind(relax.op.reshape(one, [1, 60]), "f")
    transformed(b.module(dense(b, flat, 60), b.lookup(flat), flat))


def test_axes_of_size_one_are_only_renamed():
    b = Builder((1, 1, 1, 6))
    assert transformed(b.module(b.permute(b.parameters[0], *TO_FIRST))) == ["relax.reshape"]


def test_a_value_used_in_both_orders():
    b = Builder((1, 5, 3, 4))
    one = b.permute(b.parameters[0], *TO_FIRST)
    y = b.lookup(one)
    transformed(b.module(b.permute(y, *TO_LAST), y, b.add(y, one)))
