"""Weights in float16: values, bits of other layers, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, make_pass
from onnx import TensorProto, helper, numpy_helper


def _module(scale: float = 1.0):
    """ids [1, 3] → table [5, 6] → product [6, 4] → product [4, 2]; and an image → convolution."""
    random = np.random.default_rng(0)
    shapes = {"table": (5, 6), "a": (6, 4), "b": (4, 2), "k": (3, 2, 3, 3)}
    weights = {k: (scale * random.normal(size=s)).astype(np.float32) for k, s in shapes.items()}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "lookup"),
        helper.make_node("MatMul", ["e", "a"], ["x"], "first"),
        helper.make_node("MatMul", ["x", "b"], ["y"], "second"),
        helper.make_node("Conv", ["image", "k"], ["z"], "conv"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 3]),
         helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 2]),
         helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 3, 3])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return import_onnx(model).module, weights


def _run(module) -> dict[str, np.ndarray]:
    inputs = {
        "ids": torch.tensor([[4, 0, 2]]),
        "image": torch.from_numpy(np.random.default_rng(1).normal(size=(1, 2, 5, 5))).float(),
    }
    return {name: value.numpy() for name, value in Evaluator(module)(inputs).items()}


@pytest.mark.parametrize("embeddings", [False, True])
def test_values_are_those_of_rounded_weights(embeddings: bool) -> None:
    module, weights = _module()
    context = PassContext()
    got = _run(make_pass("half_weights", {"embeddings": embeddings}).apply(module, context))
    half = {k: w.astype(np.float16).astype(np.float32) for k, w in weights.items()}
    table = half["table"] if embeddings else weights["table"]
    np.testing.assert_allclose(
        got["y"][0], table[[4, 0, 2]] @ half["a"] @ half["b"], rtol=1e-5, atol=1e-6
    )
    exact = _run(module)
    assert not np.array_equal(got["z"], exact["z"])
    np.testing.assert_allclose(got["z"], exact["z"], rtol=1e-2, atol=1e-2)
    names = ["first", "second", "conv", *(["lookup"] if embeddings else [])]
    assert sorted(str(note.layer) for note in context.notes) == sorted(names)


def test_ignored_layers_stay_as_they_are() -> None:
    module, weights = _module()
    context = PassContext()
    changed = make_pass("half_weights{ignore=[second, conv]}").apply(module, context)
    assert [note.layer for note in context.notes] == ["first"]
    half = weights["a"].astype(np.float16).astype(np.float32)
    wanted = weights["table"][[4, 0, 2]] @ half @ weights["b"]
    np.testing.assert_allclose(_run(changed)["y"][0], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(_run(changed)["z"], _run(module)["z"])
    with pytest.raises(FewbitsError) as caught:
        make_pass("half_weights{targets=[third]}").apply(module, context)
    assert caught.value.code == "unknown-layer"


def test_weights_beyond_float16_are_refused() -> None:
    module, _ = _module(scale=1e6)
    with pytest.raises(FewbitsError) as caught:
        make_pass("half_weights").apply(module, PassContext())
    assert caught.value.code == "scale-overflow" and caught.value.where == "first"
