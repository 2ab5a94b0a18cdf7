"""Activations that are never negative may have a format of their own."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits import FewbitsError
from fewbits.passes.activations.options import ActivationOptions
from fewbits.passes.activations.sign import never_negative
from fewbits.passes.base import PassContext
from fewbits.passes.observers import make_observer
from fewbits.passes.quantize_activations import QuantizeActivations
from fewbits.passes.rewrite import Rewriter, operator_of
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R


@I.ir_module
class Layers:
    @R.function
    def main(x: R.Tensor((4, 8), "float32"), w: R.Tensor((8, 8), "float32")):
        with R.dataflow():
            a = R.matmul(x, w)
            b = R.nn.relu(a)
            c = R.reshape(b, (8, 4))
            d = R.add(b, b)
            e = R.subtract(b, d)
            f = R.maximum(e, b)
            g = R.add(b, x)
            h = R.add(R.mean(c), R.sum(f))
            i = R.add(h, R.sum(g))
            R.output(i)
        return i


def test_signs_follow_from_operators() -> None:
    rewriter = Rewriter(Layers)
    known = {str(var.name): never_negative(rewriter, var) for var, _ in rewriter.bindings}
    assert [known[name] for name in "abcdefg"] == [False, True, True, True, False, True, False]


def test_unsigned_formats_are_for_what_is_never_negative() -> None:
    with pytest.raises(FewbitsError, match="no negative levels"):
        ActivationOptions("uint2")
    options = ActivationOptions("int8-narrow", "tensor", False, "minmax", nonnegative="uint2")
    chosen = options.for_nonnegative()
    assert chosen.number_format.name == "uint2"
    observer = make_observer("minmax")
    observer.update(np.array([0.0, 0.25, 6.0], np.float32))
    assert chosen.static_scale(observer) == np.float32(2.0)
    with pytest.raises(FewbitsError, match="no number format"):
        ActivationOptions(nonnegative="uint")


def test_layers_after_relu_get_the_other_format() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((4, 8), "float32"))
    weight = relax.const(np.eye(8, dtype=np.float32))
    with builder.function("main", [x]):
        with builder.dataflow():
            first = builder.emit(relax.op.nn.relu(builder.emit(relax.op.matmul(x, weight))))
            second = builder.emit_output(relax.op.matmul(first, weight))
        builder.emit_func_output(second)
    module = builder.get()
    module["main"] = module["main"].with_attr("input_names", ["x"]).with_attr("output_names", ["y"])
    step = QuantizeActivations(format="int8-narrow", nonnegative="uint2", strategy="tensor")
    made = step.apply(module, PassContext())
    calls = [value for _, value in Rewriter(made).bindings]
    formats = [
        str(call.attrs["format"]) for call in calls if operator_of(call) == "fewbits.fake_quantize"
    ]
    assert formats == ["int8-narrow", "uint2"]
