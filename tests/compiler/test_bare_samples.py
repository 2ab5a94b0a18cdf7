"""A model whose inputs have no batch in front takes and gives arrays in its own shapes."""

from __future__ import annotations

from pathlib import Path

import fewbits
import numpy as np
from onnx import parser

CACHE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[3,N,P] past, float[3,N,1] step) => (float[3,N,Q] cache, float[3,N,1] last)
{
  cache = Concat<axis = 2>(past, step)
  last = Relu(step)
}
"""


def test_a_cache_keeps_its_shape(tmp_path: Path) -> None:
    fewbits.compile(parser.parse_model(CACHE), tmp_path / "out", target="cpu", recipe="float")
    model = fewbits.load(tmp_path / "out")
    rng = np.random.default_rng(0)
    past = rng.normal(size=(3, 2, 5)).astype(np.float32)
    step = rng.normal(size=(3, 2, 1)).astype(np.float32)
    outputs = model(past=past, step=step)
    np.testing.assert_array_equal(outputs["cache"], np.concatenate([past, step], 2))
    np.testing.assert_array_equal(outputs["last"], np.maximum(step, 0))
