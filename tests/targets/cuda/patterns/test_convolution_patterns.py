"""Convolutions of whole models: which kernels they get, and that results are onnxruntime's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.emulator import install
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.skipif(
    testing.no_compiler() is not None, reason=str(testing.no_compiler())
)
RNG = np.random.default_rng(29)


@pytest.fixture(autouse=True)
def _gpu(_kept_between_runs: None) -> Iterator[None]:
    install("sm_80")
    yield
    install("sm_90a")


class Graph:
    """An ONNX model as it grows; names of nodes are those of their results."""

    def __init__(self, *shape: Any) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)

    def add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def conv(
        self, name: str, source: str, outputs: int, inputs: int, *kernel: int, **attributes: Any
    ) -> str:
        groups = attributes.get("group", 1)
        shape = (outputs, inputs // groups, *kernel)
        weight = RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        for suffix, array in (("w", weight), ("b", RNG.standard_normal(outputs) / 4)):
            self.weights.append(numpy_helper.from_array(array.astype(np.float32), name + suffix))
        return self.add("Conv", name, source, name + "w", name + "b", **attributes)

    def model(self, *results: tuple[str, tuple[Any, ...]]) -> onnx.ModelProto:
        outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in results]
        graph = helper.make_graph(self.nodes, "cnn", [self.input], outputs, self.weights)
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9)


def images(batch: Any = "N", height: Any = 13, width: Any = 11) -> onnx.ModelProto:
    """Every kind of convolution, and what stands between them in networks."""
    g = Graph(batch, 3, height, width)
    a = g.add("Relu", "a", g.conv("first", "x", 16, 3, 3, 3, strides=[2, 1], pads=[1, 0, 2, 1]))
    b = g.conv("depth", a, 16, 16, 3, 3, pads=[1, 1, 1, 1], group=16)
    b = g.conv("pixel", g.add("Relu", "b", b), 16, 16, 1, 1)
    a = g.add("Relu", "c", g.add("Add", "sum", a, b))
    b = g.conv("wide", a, 24, 16, 3, 3, dilations=[1, 2], pads=[2, 2, 0, 2])
    b = g.add("Sigmoid", "d", g.conv("grouped", b, 12, 24, 2, 3, pads=[0, 1, 1, 1], group=3))
    b = g.add("MaxPool", "pool", b, kernel_shape=[2, 2], strides=[2, 2])
    y = g.conv("odd", b, 5, 12, 1, 1, strides=[1, 2])
    g.add("GlobalAveragePool", "mean", b)
    g.add("Flatten", "z", "mean")
    return g.model((y, (batch, 5, "p", "q")), ("z", (batch, 12)))


def built(model: onnx.ModelProto | Path, folder: Path, recipe: str, **options: Any) -> Any:
    return compile_model(
        model, folder, target="cuda-sm80", recipe=recipe, calibration="random", tuning=None,
        **options,
    )  # fmt: skip


def kernels(artifact: Any) -> dict[str, str]:
    rows = artifact.manifest["layers"]
    return {row["name"]: row["kernel"] for row in rows if row["operator"] == "conv2d"}


def compare(artifact: Any, model: onnx.ModelProto, tolerance: float, *shape: int) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"x": x}), strict=True)
    )
    got = load(artifact.folder)(x=x)
    assert set(got) == set(expected)
    for name, wanted in expected.items():
        wanted = np.asarray(wanted)
        assert got[name].shape == wanted.shape
        assert np.linalg.norm(got[name] - wanted) <= tolerance * np.linalg.norm(wanted)


def test_half_floats_of_any_batch_and_size(tmp_path: Path) -> None:
    model = images(height="height", width="width")
    artifact = built(model, tmp_path / "out", "float")
    found = list(kernels(artifact).values())
    assert len(found) == 6
    assert sum("window" in kernel for kernel in found) == 2  # depthwise and grouped
    assert all("mma" in kernel for kernel in found if "window" not in kernel)
    for shape in ((1, 3, 13, 11), (3, 3, 9, 20)):
        compare(artifact, model, 4e-3, *shape)


def test_bfloat16_and_float32(tmp_path: Path) -> None:
    model = images(batch=2)
    for dtype, tolerance in (("bfloat16", 3e-2), ("float32", 1e-5)):
        artifact = built(model, tmp_path / dtype, "float", float_type=dtype)
        compare(artifact, model, tolerance, 2, 3, 13, 11)
        of_ours = ["conv" in kernel or "mma" in kernel for kernel in kernels(artifact).values()]
        assert all(of_ours) if dtype == "bfloat16" else not any(of_ours)


def test_integers_are_the_oracles(tmp_path: Path) -> None:
    artifact = built(images(batch=1), tmp_path / "out", "int8")
    found = kernels(artifact)
    assert len(found) == 6 and all("generated" not in kernel for kernel in found.values())
    assert artifact.manifest["golden"] == {
        "samples": 4, "exact": True, "difference": 0.0,
        "allowed": artifact.manifest["golden"]["allowed"],
    }  # fmt: skip


def test_activations_rounded_to_bytes(tmp_path: Path) -> None:
    model = images(height="height", width="width")
    artifact = built(model, tmp_path / "out", "w8a8")
    assert all("generated" not in kernel for kernel in kernels(artifact).values())
    compare(artifact, model, 5e-2, 2, 3, 13, 11)


def test_weights_of_few_bits_stay_few(tmp_path: Path) -> None:
    g = Graph("N", 32, 6, 6)
    y = g.conv("last", g.add("Relu", "a", g.conv("first", "x", 64, 32, 3, 3)), 32, 64, 1, 1)
    model = g.model((y, ("N", 32, 4, 4)))
    artifact = built(model, tmp_path / "out", "w4-g128")
    assert all("mma" in kernel for kernel in kernels(artifact).values())
    assert artifact.manifest["golden"]["difference"] <= 1e-2
    rows = [row for row in artifact.manifest["layers"] if row["operator"] == "conv2d"]
    assert all(row["bits"] < 5 * row["weights"] for row in rows)


def test_keyword_spotting_in_integers(tmp_path: Path) -> None:
    """The DS-CNN of MLPerf Tiny: all layers in kernels, all bits the oracle's."""
    path = Path(__file__).parents[5] / "shared/models/mlperf_kws_dscnn_fp32.onnx"
    if not path.exists():
        pytest.skip("the model is not here")
    artifact = built(path, tmp_path / "out", "int8")
    found = list(kernels(artifact).values())
    assert len(found) == 9 and sum("window" in kernel for kernel in found) == 4
    assert artifact.manifest["golden"]["exact"]


def test_signals(tmp_path: Path) -> None:
    g = Graph("N", 4, "length")
    a = g.add("Relu", "a", g.conv("first", "x", 8, 4, 5, strides=[2], pads=[2, 1], dilations=[2]))
    y = g.conv("last", a, 6, 8, 3, pads=[1, 1], group=2)
    model = g.model((y, ("N", 6, "m")))
    artifact = built(model, tmp_path / "out", "float")
    rows = artifact.manifest["layers"]
    found = [row["kernel"] for row in rows if row["operator"].startswith("conv")]
    assert len(found) == 2 and all("conv" in kernel for kernel in found)
    compare(artifact, model, 4e-3, 2, 4, 23)
