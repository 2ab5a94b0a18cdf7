"""Function operators: ONNX defines them by other operators, and so they are replaced by those.

Also the functions a model brings along (PyTorch exports modules as functions).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import inliner

from ...errors import FewbitsError
from .checks import describe

#: Operators without a converter that are expanded.
EXPANDED = frozenset(
    [
        "Attention",
        "CausalConvWithState",
        "CenterCropPad",
        "FlexAttention",
        "NegativeLogLikelihoodLoss",
        "RotaryEmbedding",
        "SoftmaxCrossEntropyLoss",
        "SwiGLU",
    ]
)

#: Initializers up to this size stay in the model while it is expanded.
_SMALL = 1024


def expand(model: onnx.ModelProto, converted: Collection[str]) -> onnx.ModelProto:
    """The model with its own functions and `EXPANDED` operators replaced by their definitions.

    Inner nodes are called after the node they come from. `converted` are the operators that need
    no expansion although they may be functions.

    Raises:
        FewbitsError: ``invalid-function`` for functions that call themselves, and where ONNX
            refuses to expand.
    """
    _check_calls(model)
    while True:
        wanted = {
            (node.domain, node.op_type)
            for node in model.graph.node
            if node.domain in ("", "ai.onnx") and node.op_type in EXPANDED - set(converted)
        }
        wanted |= {(function.domain, function.name) for function in model.functions}
        if not wanted:
            return model
        model = _expand_once(model, wanted)


def _check_calls(model: onnx.ModelProto) -> None:
    """Functions must not call themselves, directly or by way of others."""
    calls = {
        (function.domain, function.name): {(node.domain, node.op_type) for node in function.node}
        for function in model.functions
    }
    while calls:
        leaves = [name for name, called in calls.items() if not called & calls.keys()]
        if not leaves:
            name = next(iter(calls))
            raise FewbitsError(
                "invalid-function", "a function calls itself", where=f"function {name[1]!r}"
            )
        for name in leaves:
            del calls[name]


def _expand_once(model: onnx.ModelProto, which: Collection[tuple[str, str]]) -> onnx.ModelProto:
    skeleton, weights = _without_weights(model)
    try:
        result = inliner.inline_selected_functions(
            skeleton, sorted(which), exclude=False, inline_schema_functions=True
        )
    except Exception as error:  # the C++ inliner raises several types
        called = [node for node in model.graph.node if (node.domain, node.op_type) in which]
        reason = str(error).strip().splitlines()[-1]
        raise FewbitsError(
            "invalid-function",
            f"a function operator cannot be expanded: {reason}",
            where=describe(called[0]) if called else None,
        ) from error
    names = {tensor.name for tensor in weights}
    inputs = [value for value in result.graph.input if value.name not in names]
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    result.graph.initializer.extend(weights)
    del result.functions[:]
    _name_inner_nodes(model.graph, result.graph)
    return result


def _without_weights(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A copy in which large initializers are inputs, because the inliner serializes the model."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    graph = skeleton.graph
    weights = [t for t in model.graph.initializer if t.ByteSize() > _SMALL]
    names = {tensor.name for tensor in weights}
    small = [t for t in model.graph.initializer if t.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(small)
    for tensor in weights:
        graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return skeleton, weights


def _name_inner_nodes(before: onnx.GraphProto, after: onnx.GraphProto) -> None:
    """The node that computes an expanded node's result takes over its name, inner ones extend it.

    The inliner leaves nodes where the expanded one was, and names of the outer graph alone.
    """
    owner = {}
    for node in before.node:
        for name in filter(None, node.output):
            owner[name] = node.name or next(iter(filter(None, node.output)))
    outer = ""
    for node in reversed(after.node):
        results = [name for name in node.output if name in owner]
        if results:
            outer = owner[results[0]]
            node.name = outer
        else:
            node.name = (
                f"{outer}/{node.name or next(iter(filter(None, node.output)), node.op_type)}"
            )
