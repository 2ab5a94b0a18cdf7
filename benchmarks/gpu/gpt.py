"""A GPT block as ONNX, with random weights: any batch, any number of tokens, a mask as an input."""

from __future__ import annotations

from typing import Any

import numpy as np


def gpt_block(width: int, heads: int) -> Any:
    """x [b, t, width], mask [b, 1, t, t] added to the scores -> y [b, t, width]."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(width)
    weights: dict[str, np.ndarray] = {
        "scale": np.asarray(np.float32((width // heads) ** -0.5)),
        "split": np.array([0, 0, heads, width // heads]),
        "join": np.array([0, 0, width]),
        **{name: np.asarray(np.float32(value)) for name, value in
           (("root", 2**0.5), ("one", 1), ("half", 0.5))},
    }  # fmt: skip
    nodes: list[Any] = []

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def normal(x: str, name: str) -> str:
        weights[f"{name}.g"] = np.ones(width, np.float32)
        weights[f"{name}.b"] = np.zeros(width, np.float32)
        return node("LayerNormalization", [x, f"{name}.g", f"{name}.b"], name)

    def linear(x: str, name: str, inputs: int, outputs: int) -> str:
        w = generator.standard_normal((inputs, outputs)) / inputs**0.5
        weights[f"{name}.w"] = w.astype(np.float32)
        weights[f"{name}.b"] = (generator.standard_normal(outputs) / 8).astype(np.float32)
        node("MatMul", [x, f"{name}.w"], f"{name}.m")
        return node("Add", [f"{name}.m", f"{name}.b"], name)

    def of_heads(x: str, name: str, perm: list[int]) -> str:
        node("Reshape", [x, "split"], f"{name}.r")
        return node("Transpose", [f"{name}.r"], f"{name}.t", perm=perm)

    first = normal("x", "n1")
    q, k, v = (linear(first, name, width, width) for name in ("q", "k", "v"))
    node("MatMul", [of_heads(q, "q", [0, 2, 1, 3]), of_heads(k, "k", [0, 2, 3, 1])], "scores")
    node("Mul", ["scores", "scale"], "scaled")
    node("Add", ["scaled", "mask"], "masked")
    node("Softmax", ["masked"], "shares", axis=-1)
    node("MatMul", ["shares", of_heads(v, "v", [0, 2, 1, 3])], "mixed")
    node("Transpose", ["mixed"], "back", perm=[0, 2, 1, 3])
    attended = linear(node("Reshape", ["back", "join"], "flat"), "o", width, width)
    middle = node("Add", ["x", attended], "middle")
    up = linear(normal(middle, "n2"), "f1", width, 4 * width)
    node("Div", [up, "root"], "d")
    node("Erf", ["d"], "e")
    node("Add", ["e", "one"], "e1")
    node("Mul", [up, "e1"], "g")
    gelu = node("Mul", ["g", "half"], "gelu")
    node("Add", [middle, linear(gelu, "f2", 4 * width, width)], "y")

    def port(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "gpt_block",
        [port("x", ["b", "t", width]), port("mask", ["b", 1, "t", "t"])],
        [port("y", ["b", "t", width])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def block_inputs(batch: int, tokens: int, width: int) -> dict[str, np.ndarray]:
    """Random x and a causal mask."""
    x = np.random.default_rng(3).standard_normal((batch, tokens, width), np.float32)
    mask = np.triu(np.full((tokens, tokens), -1e4, np.float32), 1)
    return {"x": x, "mask": np.broadcast_to(mask, (batch, 1, tokens, tokens)).copy()}
