"""The loop over an ONNX graph's nodes, and the table of converters.

**How to write a converter.** It is a function ``(node: Node) -> Result | tuple[Result, ...]``,
listed in its file's ``CONVERTERS: dict[str, Converter]`` under the operator's name (``"Conv"``;
``"com.microsoft:QLinearAdd"`` outside the default domain). One result per ONNX output (a single
result where there is one output); outputs the model does not use may be left out at the end. A
result is

- a Relax expression. It may nest calls: they are taken apart into helper bindings. Shape and dtype
  of an expression are known only after ``node.emit(expression)``, which returns a variable;
- a numpy array, when the result is known at import (``Shape``): it becomes a constant that other
  nodes can use as a shape, and is never computed at run time.

``node[i]`` is input i as an expression; ``node.constant(i)`` its array if it is known at import,
else None; ``node.known(i, "the scale")`` the same, refusing values that are not known;
``node.sizes(i, "the shape")`` ints and expressions, for arguments that may be symbolic;
``node.has(i)``; ``node.shape(i)`` (ints; to look at a symbolic dimension is an error),
``node.extents(i)`` (ints and expressions); ``node.dtype(i)``; attributes by type:
``node.int("axis", 1)``, ``node.float``, ``node.string``, ``node.ints``; ``node.opset`` for
operators that changed; ``node.scalar(2.0)`` a constant of input 0's dtype. Forms that are not
implemented: ``raise node.refuse("what")``. Nothing has to be checked that ONNX's own rules
guarantee: type errors that Relax finds are reported at the node.

A node whose inputs are all known is evaluated at import, and its converter is not called, unless
the operator is in ``KEPT``: ``DequantizeLinear`` of a constant stays, because a few-bit weight is
what the rest of the compiler looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from tvm import ir, relax, tirx

from ...errors import FewbitsError
from . import finite, fold, fold_sizes, quantized
from .expand import EXPANDED, definition
from .interface import TensorInfo
from .node import Builder, Node, Result, operator_key
from .operators import (
    activation,
    convolution,
    elementwise,
    indexing,
    linear,
    movement,
    normalization,
    pooling,
    reduction,
    resize,
    shapes,
    slicing,
)
from .signed import sign_codes
from .values import Known, Sizes, Value, dtype_and_shape

Converter = Callable[[Node], "Result | tuple[Result, ...]"]

_FAMILIES = (
    elementwise,
    activation,
    linear,
    convolution,
    pooling,
    normalization,
    reduction,
    movement,
    shapes,
    slicing,
    indexing,
    resize,
    quantized,
)

#: Operators whose converters compute known results themselves (they check sizes first).
_SELF_FOLDING = frozenset({"Constant", "ConstantOfShape", "EyeLike", "Range", "Shape", "Size"})

#: Operators that stay in the module although their inputs are known.
KEPT = frozenset({"DequantizeLinear", "com.microsoft:DequantizeLinear"})


def _table() -> dict[str, Converter]:
    table: dict[str, Converter] = {}
    for family in _FAMILIES:
        table.update(family.CONVERTERS)
    return table


CONVERTERS: Mapping[str, Converter] = _table()

#: The operators that are claimed: every node case of onnx for them is imported correctly, or is
#: one of `REFUSED_CASES`.
CLAIMED_OPERATORS = frozenset(CONVERTERS) | EXPANDED


def convert(
    graph: onnx.GraphProto,
    opsets: Mapping[str, int],
    inputs: Sequence[TensorInfo],
    known: Mapping[str, np.ndarray],
) -> tuple[ir.IRModule, list[str]]:
    """A checked graph as a module (see docs/architecture.md), and notes for the user.

    Args:
        graph: nodes in topological order.
        opsets: version of each domain.
        inputs: the run-time inputs.
        known: the initializers.

    Raises:
        FewbitsError: at the first node that cannot be converted.
    """
    parameters = _parameters(inputs)
    values: dict[str, Value] = {name: Known(name, array) for name, array in known.items()}
    values.update({parameter.name: parameter for parameter in parameters})
    builder = Builder(parameter.name for parameter in parameters)
    used = _used(graph)
    for proto in graph.node:
        _convert_node(proto, opsets, values, used, builder)
    notes = builder.notes
    outputs = []
    for output in graph.output:
        value = values[output.name]
        if isinstance(value, Known | Sizes):
            notes.append(f"output {output.name!r} does not depend on the inputs")
            name = builder.unique(output.name)
            value = builder.bind(value.expr, name, output.name)
        outputs.append(value)
    outputs = sign_codes(builder, outputs)
    names: dict[str, Any] = {
        "input_names": [parameter.name for parameter in parameters],
        "output_names": [output.name for output in graph.output],
    }
    if builder.largest:
        names["tir_var_upper_bound"] = {v.name: size for v, size in builder.largest.items()}
    return _module(parameters, builder.bindings, outputs, names), notes


def _parameters(inputs: Sequence[TensorInfo]) -> list[relax.Var]:
    """The function's parameters; a symbolic dimension is the same variable in all of them."""
    tensor_type: Any = relax.TensorType
    names = {extent for i in inputs for extent in i.shape if isinstance(extent, str)}
    symbols = {name: tirx.Var(name, "int64") for name in names}
    return [
        relax.Var(i.name, tensor_type([symbols.get(e, e) for e in i.shape], i.dtype))
        for i in inputs
    ]


def _used(graph: onnx.GraphProto) -> set[str]:
    used = {name for node in graph.node for name in node.input}
    return used | {output.name for output in graph.output}


def _convert_node(
    proto: onnx.NodeProto,
    opsets: Mapping[str, int],
    values: dict[str, Value],
    used: set[str],
    builder: Builder,
) -> None:
    key = operator_key(proto)
    opset = opsets["" if proto.domain == "ai.onnx" else proto.domain]
    inputs = [values[name] if name else None for name in proto.input]
    name = proto.name or next(iter(filter(None, proto.output)), proto.op_type)
    if key not in CONVERTERS:
        _convert_definition(proto, opset, inputs, values, builder)
        return
    wanted = [i for i, output in enumerate(proto.output) if output in used]
    node = Node(proto, name, opset, inputs, wanted[-1] + 1 if wanted else 1, builder)
    try:
        finite.check_weights(node)
        results = _folded(node)
        if results is None:
            result = CONVERTERS[key](node)
            results = result if isinstance(result, tuple) else (result,)
        _bind_results(node, results, values)
    except FewbitsError as error:
        if error.where in (None, name):
            error.where = node.where
        raise
    except _REFUSALS as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise node.error("invalid-node", f"{key} does not accept this: {reason[0]}") from error


def _folded(node: Node) -> tuple[Result, ...] | None:
    """The results of a node whose inputs are known, at least but for symbolic dimensions."""
    if node.operator in KEPT or node.operator in _SELF_FOLDING:
        return None
    if all(value is None or isinstance(value, Known) for value in node.inputs):
        return fold.evaluate(node)
    if all(value is None or isinstance(value, Known | Sizes) for value in node.inputs):
        return fold_sizes.evaluate(node)
    return None


def _convert_definition(
    proto: onnx.NodeProto,
    opset: int,
    inputs: list[Value | None],
    values: dict[str, Value],
    builder: Builder,
) -> None:
    """Convert the nodes that define a function operator, in a scope of their own."""
    types = [None if value is None else dtype_and_shape(value) for value in inputs]
    nodes, function, opsets = definition(proto, opset, types)
    actual = dict(zip(function.input, inputs, strict=False))
    inner: dict[str, Value] = {name: value for name, value in actual.items() if value is not None}
    missing = set(function.input) - inner.keys()
    results = dict(zip(function.output, proto.output, strict=False))
    wanted = {formal for formal, name in results.items() if name}
    used = {name for node in nodes for name in node.input} | wanted
    for node in nodes:
        names = ["" if name in missing else name for name in node.input]
        del node.input[:]
        node.input.extend(names)
        key = operator_key(node)
        if key not in CONVERTERS and key not in EXPANDED:
            raise FewbitsError(
                "unsupported-operator",
                f"{operator_key(proto)} is defined by {key}, which is not supported",
                where=f"node {proto.name!r} ({operator_key(proto)})",
            )
        _convert_node(node, opsets, inner, used, builder)
    for formal in wanted:
        if formal in inner:
            values[results[formal]] = inner[formal]


_CONSTANT: Any = ir.GenericConst

#: What TVM's type rules and numpy raise for operands that do not fit together.
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, OverflowError)


def _bind_results(node: Node, results: Sequence[Result], values: dict[str, Value]) -> None:
    """Give the node's results their names. The first result has the node's own name."""
    builder = node.builder
    for index, name in enumerate(node.proto.output):
        if not name:
            continue
        if index >= len(results):
            if index < node.output_count:
                raise node.refuse(f"its output {index} ({name!r})")
            continue
        result: Any = results[index]
        if isinstance(result, Known | Sizes):
            values[name] = result
        elif isinstance(result, np.ndarray | np.generic):
            values[name] = Known(name, np.asarray(result))
        elif isinstance(result, relax.Var):
            values[name] = result
        elif isinstance(result, _CONSTANT):
            values[name] = Known(name, result.value.numpy())
        else:
            values[name] = builder.bind(result, node.result_names[index], node.name)


def _module(
    parameters: list[relax.Var],
    bindings: list[relax.VarBinding],
    outputs: list[relax.Var],
    names: Mapping[str, Any],
) -> ir.IRModule:
    """The function. Variables that leave the dataflow block are ordinary ones, not DataflowVars."""
    public: dict[relax.Var, relax.Var] = {
        var: relax.Var(var.name, var.ty) for var in outputs if isinstance(var, relax.DataflowVar)
    }
    normalizer = relax.BlockBuilder()

    def renamed(expression: Any) -> Any:
        if isinstance(expression, relax.Var):
            return public.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([renamed(field) for field in expression.fields])
        return expression

    def rebound(binding: relax.VarBinding) -> relax.VarBinding:
        value = binding.value
        if isinstance(value, relax.Call):
            arguments = [renamed(argument) for argument in value.args]
            value = relax.Call(value.op, arguments, value.attrs, value.ty_args)
        elif isinstance(value, relax.TupleGetItem):
            value = relax.TupleGetItem(renamed(value.tuple_value), value.index)
        return relax.VarBinding(renamed(binding.var), normalizer.normalize(value))

    block = relax.DataflowBlock([rebound(binding) for binding in bindings])
    results = [renamed(var) for var in outputs]
    result = normalizer.normalize(results[0] if len(results) == 1 else relax.Tuple(results))
    function = relax.Function(
        parameters,
        normalizer.normalize(relax.SeqExpr([block], result)),
        ret_ty=result.ty,
        attrs=ir.make_node("ir.DictAttrs", **names),
    ).with_attr("global_symbol", "main")
    return ir.IRModule({ir.GlobalVar("main"): function})
