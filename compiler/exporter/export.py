"""The walk over a Relax function that writes an ONNX model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

import onnx
from onnx import helper
from tvm import ir, relax
from tvm.ir import prim

from ...errors import FewbitsError
from ...ops.symbolic import spell
from . import (  # noqa: F401  (they fill the table of rules)
    compressed,
    elementwise,
    layers,
    movement,
    normalization,
    quantization,
    reduction,
)
from .fusion import BiasedLayer, find_biased_layers
from .graph import (
    Graph,
    Names,
    Node,
    Unsupported,
    constant_array,
    dtype_of,
    layer_name,
    onnx_type,
    tuple_fields,
)
from .nbits import DOMAIN, ProductOfBits, find_products
from .rules import RULES
from .sizes import Sizes

#: Opsets the rules are written for.
OLDEST_OPSET, NEWEST_OPSET = 13, 23


def export_onnx(
    module: ir.IRModule, *, name: str = "main", opset: int = 21, matmul_nbits: bool = False
) -> onnx.ModelProto:
    """Write a module in float or QDQ form as an ONNX model.

    Inputs and outputs keep their names and shapes; a node is called as the variable it computes;
    helper nodes are ``layer/Operator`` and initializers ``layer.argument``. Bindings that the
    result does not need are left out. The same module gives the same bytes.

    Args:
        module: one Relax function ``main`` as described in docs/architecture.md.
        name: the ONNX graph's name.
        opset: version of the default operator set to write, 13 to 23. int16 quantization needs
            21, some rarer operators 14 to 19; GELU is one node from 20 on.
        matmul_nbits: write products with integer weights in groups as onnxruntime's MatMulNBits,
            which other run times lack.

    Raises:
        FewbitsError: ``unsupported-operator`` with all calls that have no ONNX form;
            ``unknown-opset``.
    """
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise FewbitsError(
            "unknown-opset",
            f"cannot write opset {opset}",
            hint=f"choose one from {OLDEST_OPSET} to {NEWEST_OPSET}",
        )
    return _Export(module["main"], opset, matmul_nbits).model(name)


#: So many layers are named in an error about the same problem.
NAMED_LAYERS = 6

#: What is in the way of a call: its operator, why (or an empty text), and the layer.
Problem: TypeAlias = "tuple[str, str, str]"

#: A value of the function: a variable, or one field of a variable that holds a tuple.
Key: TypeAlias = "tuple[relax.Var, int | None]"


class _Export:
    """One function during export."""

    def __init__(self, function: Any, opset: int, matmul_nbits: bool) -> None:
        self.function = function
        self.graph = Graph(opset)
        self.sizes = Sizes(self.graph, function.params)
        self.input_names = [parameter.name for parameter in function.params]
        self.output_names = [str(name) for name in function.attrs["output_names"]]
        self.graph.reserve(self.input_names)
        self.graph.reserve(self.output_names)
        self.calls: dict[relax.Var, Any] = {}
        self.aliases: dict[relax.Var, Any] = {}
        for block in function.body.blocks:
            for binding in block.bindings:
                kept = self.calls if isinstance(binding.value, relax.Call) else self.aliases
                kept[binding.var] = binding.value
        self.variable_names = {var.name for var in (*self.calls, *self.aliases)}
        body = self._resolve(function.body.body)
        self.results = [self._resolve(field) for field in _fields(body)]
        products = find_products(self.calls) if matmul_nbits else {}
        biased = find_biased_layers(self.calls, self._uses())
        self.fused: dict[relax.Var, BiasedLayer | ProductOfBits] = {
            **{var: layer for var, layer in biased.items() if layer.anchor not in products},
            **products,
        }
        self.has_products = bool(products)
        self.live = self._find_live()
        self.names: dict[Key, str] = {(p, None): p.name for p in function.params}

    def model(self, name: str) -> onnx.ModelProto:
        """The whole model."""
        self._name_values()
        problems = [self._export_call(var) for var in self.calls if var in self.live]
        _raise_problems([problem for problem in problems if problem is not None])
        self._write_results()
        inputs = [_value_info(parameter.name, parameter.ty) for parameter in self.function.params]
        types = tuple_fields(self.function.ret_ty) or [self.function.ret_ty]
        outputs = [
            _value_info(output, type_)
            for output, type_ in zip(self.output_names, types, strict=True)
        ]
        graph = helper.make_graph(
            self.graph.nodes, name, inputs, outputs, initializer=self.graph.initializers
        )
        opsets = [helper.make_opsetid("", self.graph.opset)]
        if self.has_products:
            opsets.append(helper.make_opsetid(DOMAIN, 1))
        model = helper.make_model(graph, opset_imports=opsets, producer_name="fewbits")
        model.ir_version = helper.find_min_ir_version_for(opsets[:1])
        return model

    # -- reading the function -------------------------------------------------------------------

    def _resolve(self, expression: Any) -> Any:
        """Follow variables that only rename, and fields of known tuples, to what they mean."""
        while isinstance(expression, relax.Var) and expression in self.aliases:
            expression = self.aliases[expression]
        if isinstance(expression, relax.TupleGetItem):
            source = self._resolve(expression.tuple_value)
            if isinstance(source, relax.Tuple):
                return self._resolve(source.fields[expression.index])
            return relax.TupleGetItem(source, expression.index)
        return expression

    def _key(self, expression: Any) -> Key | None:
        """The value that a resolved expression is; None for constants and tuples."""
        if isinstance(expression, relax.Var):
            return expression, None
        if isinstance(expression, relax.TupleGetItem):
            source: Any = expression.tuple_value
            return source, int(expression.index)
        return None

    def _variables(self, expression: Any) -> Iterator[relax.Var]:
        """The variables that a resolved expression needs."""
        expression = self._resolve(expression)
        if isinstance(expression, relax.Tuple):
            for field in expression.fields:
                yield from self._variables(field)
        elif (key := self._key(expression)) is not None:
            yield key[0]

    def _uses(self) -> Counter[relax.Var]:
        expressions = [*self.results, *(a for call in self.calls.values() for a in call.args)]
        return Counter(var for expression in expressions for var in self._variables(expression))

    def _find_live(self) -> set[relax.Var]:
        """The calls whose values reach the results, biases that became part of a layer apart."""
        needed = {var for result in self.results for var in self._variables(result)}
        live = set()
        for var, call in reversed(self.calls.items()):
            if var in needed:
                live.add(var)
                fused = self.fused.get(var)
                arguments = call.args if fused is None else fused.dependencies()
                needed.update(v for argument in arguments for v in self._variables(argument))
        return live

    # -- writing --------------------------------------------------------------------------------

    def _name_values(self) -> None:
        """Name all values: results as the interface does, others as their variables."""
        for output, result in zip(self.output_names, self.results, strict=True):
            if (key := self._key(result)) is not None:
                self.names.setdefault(key, output)
        for var, value in self.aliases.items():
            if isinstance(value, relax.TupleGetItem):
                key = self._key(self._resolve(value))
                if key is not None and key[0] in self.live and key not in self.names:
                    self.names[key] = self.graph.value_name(var.name)
        for var in self.calls:
            for key in self._keys(var):
                if var in self.live and key not in self.names:
                    label = var.name if key[1] is None else f"{var.name}.{key[1]}"
                    self.names[key] = self.graph.value_name(label)

    def _keys(self, var: Any) -> list[Key]:
        """The values that a call produces."""
        fields = tuple_fields(var.ty)
        return [(var, None)] if fields is None else [(var, i) for i in range(len(fields))]

    def _lookup(self, argument: relax.Expr, label: str) -> Names:
        """The ONNX name of an argument; a constant becomes an initializer called `label`."""
        expression: Any = self._resolve(argument)
        array = constant_array(expression)
        if array is not None:
            return self.graph.constant(array, label)
        if isinstance(expression, relax.Tuple):
            fields = [self._lookup(f, f"{label}{i}") for i, f in enumerate(expression.fields)]
            return tuple(str(field) for field in fields)
        if isinstance(expression, relax.Var) and tuple_fields(expression.ty) is not None:
            return tuple(self.names[key] for key in self._keys(expression))
        key = self._key(expression)
        if key is None:
            raise Unsupported(f"an argument that is a {type(expression).__name__}")
        return self.names[key]

    def _export_call(self, var: relax.Var) -> Problem | None:
        """Write one call; returns what is in the way, if anything is."""
        outputs = tuple(self.names[key] for key in self._keys(var))
        fused = self.fused.get(var)
        call, name = self.calls[var], var.name
        if fused is not None:
            call, name = fused.call, fused.name(self.variable_names)
        operator = getattr(call.op, "name", None) or str(call.op)
        node = Node(self.graph, name, call, outputs, self._lookup, self.sizes)
        try:
            if fused is not None:
                fused.export(node)
            elif operator in RULES and isinstance(call.op, ir.Op):
                RULES[operator](node)
            else:
                raise Unsupported("")
        except Unsupported as error:
            return operator, str(error), layer_name(var.name, self.variable_names)
        return None

    def _write_results(self) -> None:
        """Give results their own names where they are inputs, constants or used twice."""
        for output, result in zip(self.output_names, self.results, strict=True):
            source = self._lookup(result, f"{output}.value")
            if source != output:
                self.graph.add("Identity", [str(source)], [output], output, {})


def _fields(body: Any) -> list[Any]:
    """The function's results, one expression each."""
    if isinstance(body, relax.Tuple):
        return list(body.fields)
    fields = tuple_fields(body.ty)
    if fields is None:
        return [body]
    return [relax.TupleGetItem(body, index) for index in range(len(fields))]


def _raise_problems(problems: list[Problem]) -> None:
    """One error that names every layer, grouped by what is in the way."""
    places: dict[tuple[str, str], list[str]] = {}
    for operator, reason, layer in problems:
        places.setdefault((operator, reason), []).append(repr(layer))
    texts = []
    for (operator, reason), names in places.items():
        shown = ", ".join(names[:NAMED_LAYERS])
        if len(names) > NAMED_LAYERS:
            shown += f" and {len(names) - NAMED_LAYERS} more"
        texts.append(f"{operator} at {shown}" + (f" ({reason})" if reason else ""))
    if texts:
        raise FewbitsError(
            "unsupported-operator",
            "no ONNX form for " + "; ".join(texts),
            hint="the module can be compiled, but not exported; try a newer opset",
        )


def _value_info(name: str, type_: Any) -> onnx.ValueInfoProto:
    """An input or output of the model; symbolic extents keep their names."""
    shape = None
    if isinstance(type_.shape, relax.ShapeExpr):
        shape = [
            extent.value if isinstance(extent, prim.IntImm) else spell(extent)
            for extent in type_.shape.values
        ]
    return helper.make_tensor_value_info(name, onnx_type(dtype_of(type_)), shape)
