"""Function operators: ONNX defines them by other operators, and so they are replaced by those.

Also the functions that a model brings along (PyTorch exports modules as functions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner

from ...errors import FewbitsError
from ...ops.symbolic import Extent, spell
from .checks import describe

#: Operators that have no converter and are replaced by their definition.
EXPANDED = frozenset(
    {
        "Attention",
        "CausalConvWithState",
        "CenterCropPad",
        "NegativeLogLikelihoodLoss",
        "RotaryEmbedding",
        "SoftmaxCrossEntropyLoss",
        "SwiGLU",
    }
)

#: Initializers up to this size stay in the model while its own functions are expanded.
_SMALL = 1024


def definition(
    node: onnx.NodeProto, opset: int, inputs: Sequence[tuple[str, Sequence[Extent]] | None]
) -> tuple[list[onnx.NodeProto], onnx.FunctionProto, dict[str, int]]:
    """The nodes that the standard defines an operator by.

    Args:
        node: a node of one of the `EXPANDED` operators.
        opset: version of its operator set.
        inputs: dtype and shape of each input, None where it is left out.

    Returns:
        The nodes, with attributes filled in and names that extend the node's; the function with
        its formal inputs and outputs; and the operator sets of the nodes.

    Raises:
        FewbitsError: ``unsupported-form`` where the standard has no definition for these inputs.
    """
    schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)
    function = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        types = [_type(value).SerializeToString() for value in inputs]
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        version = max(versions, default=opset)
        function.ParseFromString(
            schema.get_context_dependent_function_with_opset_version(
                version, node.SerializeToString(), types
            )
        )
    elif schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= opset]
        function.ParseFromString(
            schema.get_function_with_opset_version(max(versions, default=opset))
        )
    if not function.node:
        raise FewbitsError(
            "unsupported-form",
            f"{node.op_type}: this form has no definition in the standard",
            where=describe(node),
        )
    given = {attribute.name: attribute for attribute in node.attribute}
    defaults = {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name and name not in given
    }
    outer = node.name or next(iter(filter(None, node.output)))
    results = set(function.output)
    nodes = []
    for inner in function.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        is_result = bool(results.intersection(inner.output))
        copy.name = outer if is_result else f"{outer}/{inner.name or inner.output[0]}"
        del copy.attribute[:]
        copy.attribute.extend(_filled(inner, {**defaults, **given}))
        nodes.append(copy)
    opsets = {entry.domain: entry.version for entry in function.opset_import}
    return nodes, function, opsets or {"": opset}


def _type(value: tuple[str, Sequence[Extent]] | None) -> onnx.TypeProto:
    if value is None:
        return onnx.TypeProto()
    code = helper.np_dtype_to_tensor_dtype(np.dtype(value[0]))
    shape = [e if isinstance(e, int) else spell(e) for e in value[1]]
    return helper.make_tensor_type_proto(code, shape)


def _filled(
    node: onnx.NodeProto, actual: Mapping[str, onnx.AttributeProto]
) -> list[onnx.AttributeProto]:
    """The node's attributes; references to the function's attributes get their values."""
    attributes = []
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            attributes.append(attribute)
        elif attribute.ref_attr_name in actual:
            copy = onnx.AttributeProto()
            copy.CopyFrom(actual[attribute.ref_attr_name])
            copy.name = attribute.name
            attributes.append(copy)
    return attributes


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions replaced by their bodies.

    Inner nodes are called after the node they come from.

    Raises:
        FewbitsError: ``invalid-function`` for functions that call themselves, and where ONNX
            refuses to expand.
    """
    if not model.functions:
        return model
    _check_calls(model)
    skeleton, weights = _without_weights(model)
    try:
        result = inliner.inline_local_functions(skeleton)
    except Exception as error:  # the C++ inliner raises several types
        names = {(function.domain, function.name) for function in model.functions}
        called = [node for node in model.graph.node if (node.domain, node.op_type) in names]
        reason = str(error).strip().splitlines()[-1:] or [""]
        raise FewbitsError(
            "invalid-function",
            f"a function cannot be expanded: {reason[0]}",
            where=describe(called[0]) if called else None,
        ) from error
    del result.graph.input[:]
    result.graph.input.extend(model.graph.input)
    result.graph.initializer.extend(weights)
    _name_inner_nodes(model.graph, result.graph)
    return result


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


def _without_weights(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A copy with large initializers as inputs, because the inliner serializes the model."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    graph = skeleton.graph
    large = [tensor for tensor in model.graph.initializer if tensor.ByteSize() > _SMALL]
    for tensor in large:
        graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    del graph.initializer[:]
    graph.initializer.extend(t for t in model.graph.initializer if t.ByteSize() <= _SMALL)
    return skeleton, large


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
            node.name = f"{outer}/{node.name or next(iter(filter(None, node.output)), '')}"
