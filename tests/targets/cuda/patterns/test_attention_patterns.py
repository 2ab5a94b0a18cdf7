"""Attention of whole models: repeated keys are read in place, single rows share their keys."""

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
from fewbits.compiler.importer import import_onnx
from fewbits.schedules.cuda.architecture import SM_80
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.emulator import install
from fewbits.targets.cuda.pipeline import choose_kernels, lower_to_tir
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.skipif(
    testing.no_compiler() is not None, reason=str(testing.no_compiler())
)
HEADS, GROUPS, SIZE = 4, 2, 16


@pytest.fixture(autouse=True)
def _gpu(_kept_between_runs: None) -> Iterator[None]:
    install("sm_80")
    yield
    install("sm_90a")


def model(rows: int | str) -> onnx.ModelProto:
    """q [n, rows, 4, 16] with keys and values [n, t, 2, 16], each head of them repeated."""
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {
        "axis": np.array([2]),
        "times": np.array([1, 1, HEADS // GROUPS, 1, 1]),
        "merged": np.array([0, HEADS, -1, SIZE]),
        "scale": np.array(SIZE**0.5, np.float32),
    }

    def add(operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def repeated(name: str) -> str:
        turned = add("Transpose", f"{name}_turned", name, perm=[0, 2, 1, 3])
        wide = add("Unsqueeze", f"{name}_wide", turned, "axis")
        spread = add("Expand", f"{name}_spread", wide, "times")
        return add("Reshape", f"{name}_merged", spread, "merged")

    q = add("Transpose", "q_turned", "q", perm=[0, 2, 1, 3])
    keys = add("Transpose", "keys", repeated("k"), perm=[0, 1, 3, 2])
    scores = add("Div", "scores", add("MatMul", "products", q, keys), "scale")
    weights = add("Softmax", "weights", scores, axis=-1)
    sums = add("MatMul", "sums", weights, repeated("v"))
    add("Transpose", "y", sums, perm=[0, 2, 1, 3])
    shapes: dict[str, list[Any]] = {
        "q": ["n", rows, HEADS, SIZE], "k": ["n", "t", GROUPS, SIZE], "v": ["n", "t", GROUPS, SIZE],
    }  # fmt: skip
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["q"])
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "attention", values, [result], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(("rows", "parts"), [("r", 1), (1, 2)])
def test_repeated_heads_are_read_in_place(tmp_path: Path, rows: int | str, parts: int) -> None:
    made = model(rows)
    module = import_onnx(made, dynamic=True).module
    chosen = choose_kernels(module, SM_80, "float16")
    names = sorted(kernel.name.split("_")[0] for kernel in chosen.kernels)
    assert names == ["attention", "combine"][:parts]
    assert "broadcast" not in lower_to_tir(chosen).module["main"].script()
    generator = np.random.default_rng(8)
    lengths = {"q": 5 if rows == "r" else 1, "k": 70, "v": 70}
    given = {
        name: generator.standard_normal((2, count, HEADS if name == "q" else GROUPS, SIZE)).astype(
            np.float32
        )
        for name, count in lengths.items()
    }
    want = onnxruntime.InferenceSession(made.SerializeToString()).run(None, given)[0]
    out = tmp_path / "attention"
    compile_model(made, out, target="cuda-sm80", recipe="float", calibration="random", tuning=None)
    got = load(out)(**given)["y"]
    np.testing.assert_allclose(got, want, atol=4e-3)
