"""Small ONNX models of what takes several kernels: a layer with outliers, attention, fused rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def onnx_model(kind: str, sizes: dict[str, int]) -> Any:
    """A model, with its first sizes open.

    Args:
        kind: ``linear``, ``norm-linear``, ``linear-gelu``, ``attention``, ``softmax``.
        sizes: see each kind's function.
    """
    return _KINDS[kind](**sizes)


def _linear(inputs: int, outputs: int) -> Any:
    return _model([_node("MatMul", "x", "w", "y")], {"x": ["m", inputs]}, ["m", outputs],
                  {"w": _weight(inputs, outputs)})  # fmt: skip


def _norm_linear(inputs: int, outputs: int) -> Any:
    nodes = [_node("LayerNormalization", "x", "g", "b", "n"), _node("MatMul", "n", "w", "y")]
    vectors = {"g": np.ones(inputs, np.float32), "b": np.zeros(inputs, np.float32)}
    return _model(nodes, {"x": ["m", inputs]}, ["m", outputs],
                  {"w": _weight(inputs, outputs), **vectors})  # fmt: skip


def _linear_gelu(inputs: int, outputs: int) -> Any:
    nodes = [
        _node("MatMul", "x", "w", "a"), _node("Add", "a", "b", "c"),
        _node("Div", "c", "root", "d"), _node("Erf", "d", "e"), _node("Add", "e", "one", "f"),
        _node("Mul", "c", "f", "g"), _node("Mul", "g", "half", "y"),
    ]  # fmt: skip
    numbers = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    return _model(nodes, {"x": ["m", inputs]}, ["m", outputs],
                  {"w": _weight(inputs, outputs), "b": np.ones(outputs, np.float32) / 8,
                   **{name: np.asarray(value) for name, value in numbers.items()}})  # fmt: skip


def _attention(heads: int, size: int) -> Any:
    nodes = [
        _node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), _node("MatMul", "q", "kt", "s"),
        _node("Mul", "s", "scale", "t"), _node("Softmax", "t", "p"), _node("MatMul", "p", "v", "y"),
    ]  # fmt: skip
    shape = ["b", heads, "t", size]
    return _model(nodes, {"q": shape, "k": shape, "v": shape}, shape,
                  {"scale": np.asarray(np.float32(size**-0.5))})  # fmt: skip


def _softmax(columns: int) -> Any:
    return _model([_node("Softmax", "x", "y")], {"x": ["m", columns]}, ["m", columns], {})


_KINDS: dict[str, Callable[..., Any]] = {
    "linear": _linear,
    "norm-linear": _norm_linear,
    "linear-gelu": _linear_gelu,
    "attention": _attention,
    "softmax": _softmax,
}


def _weight(inputs: int, outputs: int) -> np.ndarray:
    generator = np.random.default_rng(inputs + outputs)
    return (generator.standard_normal((inputs, outputs)) / inputs**0.5).astype(np.float32)


def _node(operator: str, *names: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operator, names[:-1], names[-1:], name=names[-1], **attributes)


def _model(
    nodes: list[Any], inputs: dict[str, Any], result: Any, weights: dict[str, np.ndarray]
) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes, "benchmark",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
