"""Inputs and outputs become int8 exactly where they are quantized, and keep their meaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.integer_only import integer_only
from fewbits.passes.interface import integer_interface, quantization_of
from fewbits.passes.rewrite import assemble, constant
from tvm import relax

SHAPE = (1, 4, 6)


class Builder:
    def __init__(self, inputs=1):
        ty = relax.TensorType(SHAPE, "float32")
        self.parameters = [relax.Var(f"x{i}", ty) for i in range(inputs)]
        self.bindings = []
        self.builder = relax.BlockBuilder()

    def bind(self, value):
        value = self.builder.normalize(value)
        var = relax.DataflowVar(f"v{len(self.bindings)}", value.ty)
        self.bindings.append((var, value))
        return var

    def quantize(self, x, scale, zero_point, dtype="int8"):
        parameters = constant(np.float32(scale)), constant(np.array(zero_point, dtype))
        return self.bind(relax.op.quantize(x, *parameters, axis=-1, out_dtype=dtype))

    def dequantize(self, x, scale, zero_point):
        parameters = constant(np.float32(scale)), constant(np.array(zero_point, str(x.ty.dtype)))
        return self.bind(relax.op.dequantize(x, *parameters, axis=-1, out_dtype="float32"))

    def module(self, *results):
        attributes = {
            "input_names": [p.name for p in self.parameters],
            "output_names": [f"y{i}" for i in range(len(results))],
        }
        result = relax.Tuple(list(results)) if len(results) > 1 else results[0]
        return assemble(self.parameters, self.bindings, result, attributes)


def check(module, inputs, outputs):
    """The interface is as expected, and codes in and out mean what reals did."""
    after, interface = integer_interface(module)
    assert interface.inputs == inputs and interface.outputs == outputs
    real = {
        p.name: torch.randn(SHAPE, generator=torch.Generator().manual_seed(i)) * 3
        for i, p in enumerate(module["main"].params)
    }
    codes = {}
    for (name, value), meaning in zip(real.items(), inputs, strict=True):
        codes[name] = value
        if meaning is not None:
            steps = torch.round(value / meaning[0]) + meaning[1]
            codes[name] = steps.clamp(-128, 127).to(torch.int8)
    want, got = Evaluator(module)(real), Evaluator(after)(codes)
    for name, meaning in zip(want, outputs, strict=True):
        value = got[name]
        if meaning is not None:
            assert value.dtype == torch.int8
            value = (value.float() - meaning[1]) * meaning[0]
        torch.testing.assert_close(value, want[name])
    return after, interface


def test_int8_in_and_out():
    b = Builder()
    q = b.quantize(b.parameters[0], 0.5, 3)
    moved = b.bind(relax.op.permute_dims(q, [0, 2, 1]))
    module = b.module(b.dequantize(moved, 0.5, 3))
    after, interface = check(module, ((0.5, 3),), ((0.5, 3),))
    known = quantization_of(after, interface)
    assert known == {"x0": (0.5, 3), "v1": (0.5, 3)}


def test_an_input_quantized_in_two_ways_stays_float():
    b = Builder()
    one, two = b.quantize(b.parameters[0], 0.5, 3), b.quantize(b.parameters[0], 0.25, 0)
    check(b.module(b.dequantize(one, 0.5, 3), b.dequantize(two, 0.25, 0)), (None,),
          ((0.5, 3), (0.25, 0)))  # fmt: skip


def test_an_input_quantized_twice_alike():
    b = Builder()
    one, two = b.quantize(b.parameters[0], 0.5, 3), b.quantize(b.parameters[0], 0.5, 3)
    module = b.module(b.dequantize(one, 0.5, 3), b.dequantize(two, 0.5, 3))
    check(module, ((0.5, 3),), ((0.5, 3), (0.5, 3)))


def test_an_input_that_is_also_used_as_it_is():
    b = Builder(2)
    q = b.quantize(b.parameters[0], 0.5, 3)
    total = b.bind(relax.op.add(b.parameters[0], b.parameters[1]))
    check(b.module(b.dequantize(q, 0.5, 3), total), (None, None), ((0.5, 3), None))


def test_an_input_that_is_an_output():
    b = Builder()
    q = b.quantize(b.parameters[0], 0.5, 3)
    check(b.module(b.dequantize(q, 0.5, 3), b.parameters[0]), (None,), ((0.5, 3), None))


def test_an_input_nobody_uses():
    b = Builder(2)
    check(b.module(b.dequantize(b.quantize(b.parameters[0], 0.5, 3), 0.5, 3)),
          ((0.5, 3), None), ((0.5, 3),))  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_other_integers_are_left_alone(dtype):
    b = Builder()
    y = b.dequantize(b.quantize(b.parameters[0], 0.01, 7, dtype), 0.01, 7)
    check(b.module(y), (None,), (None,))


def test_a_float_island_in_the_middle():
    b = Builder()
    real = b.dequantize(b.quantize(b.parameters[0], 0.5, 3), 0.5, 3)
    sorted_ = b.bind(relax.op.sort(real, axis=-1))
    module = b.module(b.dequantize(b.quantize(sorted_, 0.25, -1), 0.25, -1))
    check(integer_only(module), ((0.5, 3),), ((0.25, -1),))
