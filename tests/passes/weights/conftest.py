"""A small model of every kind of layer, and calibration data for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.passes.base import PassContext
from fewbits.passes.calibration import Calibration
from onnx import numpy_helper, parser

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,12,24] x) => (float[1,12,10] y)
<float[24,16] wq, float[24,16] wk, float[24,20] wv, float[20,32] w1, float[32,10] w2>
{
  q = MatMul(x, wq)
  k = MatMul(x, wk)
  v = MatMul(x, wv)
  t = Transpose<perm=[0,2,1]>(k)
  s = MatMul(q, t)
  p = Softmax(s)
  a = MatMul(p, v)
  h = MatMul(a, w1)
  r = Relu(h)
  y = MatMul(r, w2)
}
"""

CONVOLUTIONS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,4,9,8] x) => (float[1,6,7,8] y)
<float[8,4,3,3] w, float[8,1,3,3] depth, float[6,4,1,1] grouped>
{
  c = Conv<pads=[1,1,1,0]>(x, w)
  r = Relu(c)
  d = Conv<group=8, pads=[0,1,0,2], dilations=[1,1]>(r, depth)
  y = Conv<group=2>(d, grouped)
}
"""


def module_of(text: str, seed: int = 0) -> Any:
    model = parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = (rng.standard_t(5, size=shape) / np.sqrt(shape[-2])).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return import_onnx(model).module


@pytest.fixture
def module() -> Any:
    return module_of(MODEL)


@pytest.fixture
def convolutions() -> Any:
    return module_of(CONVOLUTIONS)


@pytest.fixture
def context() -> Callable[..., PassContext]:
    """A fresh context with correlated samples of the model's input."""

    def make(shape: tuple[int, ...] = (12, 24), count: int = 32, **fields: Any) -> PassContext:
        rng = np.random.default_rng(1)
        mix = rng.normal(size=(shape[-1], shape[-1])) * np.linspace(0.01, 0.3, shape[-1])
        samples = (rng.normal(size=(count, *shape)) @ mix).astype(np.float32)
        calibration = Calibration(lambda: [{"x": samples}], "test", chunk=8)
        return PassContext(calibration=calibration, **fields)

    return make
