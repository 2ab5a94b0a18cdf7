"""A whole model with zeros in vectors: gathers where there are many, dense products elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from fewbits.compiler.recipe import load_recipe
from fewbits.targets.cuda import testing
from onnx import TensorProto, helper, numpy_helper


def model() -> Any:
    generator = np.random.default_rng(4)
    sizes = {"first": (72, 52), "second": (52, 20)}
    weights = {
        name: generator.normal(size=size).astype(np.float32) / 8 for name, size in sizes.items()
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "one"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "second"], ["y"], "two"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 72])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 20])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "sparse", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)
def test_a_model_of_the_recipe(gpu: testing.Gpu, tmp_path: Path) -> None:
    artifact = compile_model(
        model(), tmp_path / "out", target="cuda-sm80", recipe="vector-sparse-8x90",
        calibration="random", tuning=None,
    )  # fmt: skip
    kernels = [layer["kernel"] for layer in artifact.manifest["layers"]]
    assert all(kernel.startswith("vector-sparse 8x1") for kernel in kernels)
    assert len(kernels) == 2
    assert artifact.manifest["golden"]["difference"] < 1e-2
    loaded = load(artifact.folder)
    x = np.random.default_rng(1).normal(size=(70, 72)).astype(np.float32)
    together = loaded(x=x)["y"]
    apart = np.concatenate([loaded(x=x[:1])["y"], loaded(x=x[1:])["y"]])
    np.testing.assert_array_equal(together, apart)  # rows have scales of their own


@pytest.mark.parametrize("gpu", ["sm_80"], indirect=True)
def test_few_zeros_are_multiplied(gpu: testing.Gpu, tmp_path: Path) -> None:
    recipe = load_recipe("vector-sparse-8x90").with_options(
        {"quantize_weights": {"sparsity": "2x1@0.3"}}
    )
    artifact = compile_model(
        model(), tmp_path / "out", target="cuda-sm80", recipe=recipe, calibration="random",
        tuning=None,
    )  # fmt: skip
    kernels = [layer["kernel"] for layer in artifact.manifest["layers"]]
    assert not any("vector-sparse" in kernel for kernel in kernels)
    assert artifact.manifest["golden"]["difference"] < 1e-2
