"""Whole models of very few bits: products of bit planes, and planes between the layers."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.recipe import load_recipe
from fewbits.formats.parse import parse_format
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.calibration import Calibration
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.patterns.binary import encoding_of
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[4]
SIZES = (64, 96, 140, 10)


def perceptron() -> Any:
    """Three layers with biases and ReLU; sizes are no multiples of a plane's words."""
    generator = np.random.default_rng(8)
    nodes, weights, current = [], {}, "x"
    for place, (inputs, outputs) in enumerate(itertools.pairwise(SIZES)):
        weights[f"w{place}"] = generator.normal(size=(inputs, outputs)).astype(np.float32)
        weights[f"b{place}"] = generator.normal(size=outputs).astype(np.float32)
        last = place == len(SIZES) - 2
        nodes.append(helper.make_node("MatMul", [current, f"w{place}"], [f"m{place}"], f"l{place}"))
        result = "y" if last else f"a{place}"
        nodes.append(helper.make_node("Add", [f"m{place}", f"b{place}"], [result], f"bias{place}"))
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"r{place}"], f"relu{place}"))
            current = f"r{place}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZES[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", SIZES[-1]])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "perceptron", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def rounded(model: Any, recipe: str, calibration: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What the oracle computes of the compressed model."""
    module = import_onnx(model, dynamic=True).module
    samples = Calibration(lambda: iter([{"x": calibration}]), "test", len(calibration))
    context = PassContext(calibration=samples)
    for step in load_recipe(recipe).build():
        module = step.apply(module, context)
    [values] = Evaluator(module).batched({"x": x})
    return next(iter(values.values())).numpy()


@pytest.mark.parametrize(
    ("gpu", "recipe", "encodings"),
    [
        ("sm_80", "apnn-w1a2", ["signed8 by odd1", "unsigned2 by odd1", "unsigned2 by odd1"]),
        (
            "sm_90a",
            "apnn-w2a2",
            ["signed4 by signed2", "unsigned2 by signed2", "unsigned2 by signed2"],
        ),
    ],
    indirect=["gpu"],
)
def test_planes_are_all_that_lies_between_layers(
    gpu: testing.Gpu, recipe: str, encodings: list[str], tmp_path: Path
) -> None:
    digits = (load_digits().data / 16).astype(np.float32)
    np.savez(tmp_path / "digits.npz", x=digits[:64])
    artifact = compile_model(
        perceptron(), tmp_path / "out", target=f"cuda-{gpu.architecture.name.replace('_', '')}",
        recipe=recipe, calibration=str(tmp_path / "digits.npz"), tuning=None,
    )  # fmt: skip
    kernels = [layer["kernel"] for layer in artifact.manifest["layers"]]
    assert [text.removeprefix("binary ").split(",")[0] for text in kernels] == encodings
    library = (tmp_path / "out" / "model.so").read_bytes()
    names = set(re.findall(rb"\.entry ([a-z0-9_]+)", library)) or set(
        re.findall(rb"[a-z0-9_]+_kernel", library)
    )
    # The model's input is packed; everything after it is packed by the product that makes it.
    assert sum(name.startswith(b"pack_") for name in names) == 1
    assert not any(b"fake_quantize" in name or b"right_shift" in name for name in names)
    loaded = load(artifact.folder)
    for rows in (1, 37):
        x = digits[100 : 100 + rows]
        expected = rounded(perceptron(), recipe, digits[:64], x)
        got = loaded(x=x)["y"]
        # A wrong code anywhere would be a difference of a whole step: float16 of the result is all.
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=2e-3 * np.abs(expected).max())


def test_a_residual_network_of_binary_convolutions(gpu: testing.Gpu, tmp_path: Path) -> None:
    images = (load_digits().images / 16).astype(np.float32)[:, None]
    np.savez(tmp_path / "digits.npz", image=images[:64])
    artifact = compile_model(
        ROOT / "models" / "digits_resnet.onnx", tmp_path / "out", target="cuda-sm90a",
        recipe="apnn-w1a2", calibration=str(tmp_path / "digits.npz"), tuning=None,
    )  # fmt: skip
    kernels = [layer["kernel"] for layer in artifact.manifest["layers"]]
    assert sum(kernel.startswith("binary unsigned2 by odd1") for kernel in kernels) == 9
    assert artifact.manifest["golden"]["difference"] < 2e-3


def test_formats_as_planes() -> None:
    kinds = {"bcq1": "odd1", "int2": "signed2", "uint2": "unsigned2", "int8-narrow": "signed8"}
    for name, key in kinds.items():
        levels = parse_format(name)
        encoding = encoding_of(levels)
        assert encoding is not None
        assert encoding.key == key
        codes = np.unique(levels.encode(levels.levels()))
        np.testing.assert_array_equal(encoding.integers(codes), levels.decode(codes))
    assert encoding_of(parse_format("nf4")) is None
    assert encoding_of(parse_format("bcq2")) is None
