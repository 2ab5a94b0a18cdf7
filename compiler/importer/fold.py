"""Evaluate a node whose inputs are all known, with ONNX's own reference implementation.

Exporters spell shapes as little programs. Once dimensions are static everything in them is known,
so they are computed here, one node at a time, and nothing of them is left in the module.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import helper, shape_inference
from onnx.reference import ReferenceEvaluator

from .limits import check_extents
from .node import Node
from .values import Known

#: Inputs up to this size may be shapes: their values take part in shape inference.
_SHAPE_ELEMENTS = 64


def evaluate(node: Node) -> tuple[np.ndarray, ...]:
    """The node's results.

    Raises:
        FewbitsError: ``tensor-too-large`` before anything large is allocated; ``invalid-node``
            where the reference implementation refuses.
    """
    proto = node.proto
    arrays: dict[str, np.ndarray] = {}
    for name, value in zip(proto.input, node.inputs, strict=True):
        if isinstance(value, Known):
            arrays[name] = value.array
    outputs = [name for name in proto.output if name]
    opsets = [helper.make_opsetid(proto.domain, node.opset)]
    _check_results(node, arrays, outputs, opsets)
    function = helper.make_function("fewbits", "fold", list(arrays), outputs, [proto], opsets)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(function).run(None, arrays, {})
    except Exception as error:  # the reference raises whatever numpy and its checks raise
        raise node.error(
            "invalid-node", f"{node.operator} of constants cannot be computed: {error}"
        ) from error
    by_name = dict(zip(outputs, results, strict=True))
    return tuple(np.asarray(by_name[name]) if name else np.empty(0) for name in proto.output)


def _check_results(
    node: Node,
    arrays: dict[str, np.ndarray],
    outputs: list[str],
    opsets: list[onnx.OperatorSetIdProto],
) -> None:
    """Infer the results' shapes and refuse those that are too large."""
    inputs, initializers = [], []
    for name, array in arrays.items():
        code = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(name, code, array.shape))
        if array.size <= _SHAPE_ELEMENTS:
            initializers.append(onnx.numpy_helper.from_array(array, name))
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node.proto], "fold", inputs, results, initializers)
    model = helper.make_model(graph, opset_imports=opsets)
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True, strict_mode=True)
    except Exception as error:  # onnx's C++ checks raise several types
        reason = str(error).strip().splitlines()[-1]
        raise node.error("invalid-node", f"{node.operator} of constants: {reason}") from error
    for info in inferred.graph.output:
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            if any(array.size > 2**16 for array in arrays.values()):
                raise node.error("invalid-node", f"the shape of {info.name!r} cannot be inferred")
            continue
        shape = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in tensor.shape.dim]
        if 0 not in shape:
            dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            check_extents(shape, dtype, node.where)
