"""Every backend's rules hold in the module that its recipe makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.recipe import Recipe
from fewbits.errors import FewbitsError
from fewbits.passes.base import PassContext
from fewbits.passes.calibration import Calibration
from fewbits.passes.rewrite import Rewriter, as_array, operator_of
from fewbits.targets.constraints import BACKENDS, Backend, get_backend, recipe_passes
from onnx import numpy_helper, parser
from tvm import ir

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x) => (float[1,6,4,4] y)
<float[4,3,3,3] a, float[6,4,3,3] b>
{
  h = Conv(x, a)
  r = Relu(h)
  y = Conv(r, b)
}
"""


def quantized(backend: Backend) -> Any:
    model = parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(0.3, 1, size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    data = {"x": rng.normal(0.5, 1, size=(8, 3, 8, 8)).astype(np.float32)}
    context = PassContext(calibration=Calibration(lambda: iter([data]), "test", 8))
    module = import_onnx(model).module
    for pass_ in Recipe(name="", passes=tuple(recipe_passes(backend))).build():
        module = pass_.apply(module, context)
    return module


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b.scale != "log"], ids=lambda b: b.name)
def test_rules_hold(backend: Backend) -> None:
    found = {"weights": 0, "activations": 0}
    rewriter = Rewriter(quantized(backend))
    for _, value in rewriter.bindings:
        if operator_of(value) != "relax.dequantize":
            continue
        codes: Any = value.args[0]
        scale, zero = as_array(value.args[1]), as_array(value.args[2])
        is_weight = isinstance(codes, ir.GenericConst)
        rule = backend.weights if is_weight else backend.activations
        found["weights" if is_weight else "activations"] += 1
        assert rule.symmetric <= (not zero.any())
        assert rule.per_channel or np.unique(scale).size == 1
        if backend.scale == "power-of-two":
            assert (np.frexp(scale)[0] == 0.5).all()
        if is_weight:
            array = as_array(codes)
            assert rule.narrow <= (array.min() >= -127)
            if not rule.symmetric and not rule.per_channel:
                assert (array.min(), array.max()) == (-128, 127)
        else:
            assert str(codes.ty.dtype) == ("int16" if rule.bits == 16 else "int8")
    assert found["weights"] == 2
    assert found["activations"] >= 2


def test_differences_are_named() -> None:
    lines = get_backend("tensorrt").differences(get_backend("vitis"))
    assert any("scales: float → power-of-two" in line for line in lines)
    assert any(line.startswith("weights") for line in lines)
    assert get_backend("snpe").differences(get_backend("snpe")) == []


def test_unknown_backends_are_refused_with_the_nearest() -> None:
    with pytest.raises(FewbitsError) as error:
        get_backend("tensorr")
    assert "tensorrt" in str(error.value.hint)
