"""Float16 on CPUs: rounded once where an operator ends, bfloat16 refused."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits import FewbitsError
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from onnx import TensorProto, helper, numpy_helper


def product_model(dtype: int, weight: np.ndarray):
    """``y = x @ w`` with everything in `dtype`."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense")],
        "half",
        [helper.make_tensor_value_info("x", dtype, [1, len(weight)])],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_long_sums_lose_nothing(tmp_path):
    # 3000 ones: a sum in float16 would stop at 2048.
    model = product_model(TensorProto.FLOAT16, np.ones((3000, 2), np.float16))
    compile_model(model, tmp_path / "out", target="cpu", recipe="float")
    got = load(tmp_path / "out")(x=np.ones((1, 3000), np.float16))["y"]
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, np.full((1, 2), 3000, np.float16))


def test_bfloat16_is_refused(tmp_path):
    weight = numpy_helper.to_array(
        helper.make_tensor("w", TensorProto.BFLOAT16, [2, 2], np.ones(4))
    )
    with pytest.raises(FewbitsError) as caught:
        compile_model(
            product_model(TensorProto.BFLOAT16, weight), tmp_path / "out", target="cpu",
            recipe="float",
        )  # fmt: skip
    assert caught.value.code == "unsupported-dtype"
    assert not (tmp_path / "out").exists()
