"""Whole models with binary-coded weights, and which kernels their products get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.recipe import load_recipe
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.dispatch import dispatch
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.lookup import BinaryCoded
from fewbits.schedules.cuda.problem import Linear
from fewbits.targets.cuda import testing
from onnx import TensorProto, helper, numpy_helper


def perceptron() -> Any:
    """Two layers with a bias, ReLU and a residual; sizes are no multiples of tiles or groups."""
    generator = np.random.default_rng(4)
    first = (generator.normal(size=(72, 100)) / 8).astype(np.float32)
    second = (generator.normal(size=(100, 72)) / 10).astype(np.float32)
    bias = generator.normal(size=100).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "one"),
        helper.make_node("Add", ["a", "bias"], ["b"], "bias"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("MatMul", ["c", "second"], ["d"], "two"),
        helper.make_node("Add", ["d", "x"], ["y"], "residual"),
    ]
    weights = {"first": first, "second": second, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 72])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 72])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("gpu", ["sm_80", "sm_90a"], indirect=True)
def test_a_recipe_becomes_kernels_that_agree_with_the_oracle(
    gpu: testing.Gpu, tmp_path: Path
) -> None:
    artifact = compile_model(
        perceptron(), tmp_path / "out", target=f"cuda-{gpu.architecture.name.replace('_', '')}",
        recipe="w3-bcq", tuning=None,
    )  # fmt: skip
    kernels = [layer["kernel"] for layer in artifact.manifest["layers"]]
    assert len(kernels) == 2
    assert all(set(text.split(", ")) <= {"lut", "decode-bcq"} for text in kernels)
    module = import_onnx(perceptron(), dynamic=True).module
    for step in load_recipe("w3-bcq").build():
        module = step.apply(module, PassContext())
    loaded = load(artifact.folder)
    for rows in (1, 3, 70):
        x = np.random.default_rng(rows).normal(size=(rows, 72)).astype(np.float32)
        values = Evaluator(module)({"x": torch.from_numpy(x)})
        expected = next(iter(values.values())).numpy()
        found = loaded(x=x)["y"]
        assert np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_one_row_looks_up_and_many_decode(architecture: str) -> None:
    problem = Linear(4096, 4096, "float16", BinaryCoded(3, 64), plain("float32", "float16"))
    target = ARCHITECTURES[architecture]
    assert dispatch(problem, target, "one", rows=1).titles == ("lut",)
    assert dispatch(problem, target, "many", rows=512).titles == ("decode-bcq",)
