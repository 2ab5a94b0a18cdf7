"""From a Relax call to one PrimFunc, whatever its legalization consists of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm_ffi
from tvm import ir, relax, target, tirx, topi
from tvm.ir import prim

from ....errors import FewbitsError
from . import legalize_indexing, legalize_ordering  # noqa: F401  (they register themselves)
from .legalize import LEGALIZATIONS, STARTS_AT_INFINITY


@dataclasses.dataclass(frozen=True)
class Legalized:
    """A call's meaning in TIR.

    Attributes:
        function: its parameters are `sources` in order, then the results.
        sources: for each such parameter the index of a run-time input, or a constant array.
        outputs: number of results.
    """

    function: tirx.PrimFunc
    sources: tuple[int | np.ndarray, ...]
    outputs: int


def legalize(
    layer: str,
    call: relax.Call,
    constants: Mapping[int, np.ndarray],
    weights: Mapping[relax.Var, relax.Call] | None = None,
) -> Legalized:
    """Legalize one call, static shapes.

    Args:
        layer: the model's layer, for errors.
        call: arguments are variables, constants, shapes, or tuples of those.
        constants: arrays of the arguments (by position) that are variables with known values.
        weights: calls that become part of this one, by the variables that stand for them.

    Raises:
        FewbitsError: ``no-kernel`` where TVM has no TIR for the operator.
    """
    parameters: list[relax.Var] = []

    def replaced(argument: relax.Expr, index: int | None) -> relax.Expr:
        if isinstance(argument, relax.Var) and weights and argument in weights:
            inner: Any = weights[argument]
            fields = [replaced(field, None) for field in inner.args]
            return relax.Call(inner.op, fields, inner.attrs, inner.ty_args)
        if isinstance(argument, relax.Var) and index is not None and index in constants:
            return relax.const(constants[index], str(argument.ty.dtype))
        if isinstance(argument, relax.Tuple):
            return relax.Tuple([replaced(field, None) for field in argument.fields])
        if isinstance(argument, relax.Var) and isinstance(argument.ty, relax.TupleType):
            return relax.Tuple([parameter(field) for field in argument.ty.fields])
        if isinstance(argument, relax.Var) and isinstance(argument.ty, relax.TensorType):
            return parameter(argument.ty)
        return argument

    def parameter(ty: relax.TensorType) -> relax.Var:
        shape = [int(extent) for extent in ty.shape.values]
        fresh = relax.Var(f"x{len(parameters)}", relax.TensorType(shape, str(ty.dtype)))
        parameters.append(fresh)
        return fresh

    arguments = [replaced(argument, index) for index, argument in enumerate(call.args)]
    alone = relax.Call(call.op, arguments, call.attrs, call.ty_args)
    builder = relax.BlockBuilder()
    with builder.function("main", parameters):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(alone))
        builder.emit_func_output(result)
    module = builder.get()
    try:
        with target.Target("c"):
            module = relax.transform.LegalizeOps(LEGALIZATIONS)(module)
    except Exception as error:  # TVM's legalizations raise whatever they stumble over
        raise FewbitsError(
            "no-kernel",
            f"TVM cannot lower this {call.op.name}: {str(error).strip().splitlines()[-1]}",
            where=layer,
            hint="replace the operator, or run this part of the model on the host",
        ) from error
    legalized = _one_function(layer, call.op.name, module)
    if call.op.name in STARTS_AT_INFINITY:
        function = legalized.function.with_body(
            tvm_ffi.structural_map(legalized.function.body, [(prim.FloatImm, _infinite)])
        )
        return dataclasses.replace(legalized, function=function)
    return legalized


def _infinite(value: prim.FloatImm) -> prim.FloatImm:
    largest = 3.4028234663852886e38
    if abs(value.value) != largest:
        return value
    return prim.FloatImm(value.ty, math.copysign(math.inf, value.value))


class _Flattened:
    """The legalized ``main`` as a list of ``call_tir``, other bindings resolved."""

    def __init__(self, layer: str, operator: str, module: ir.IRModule) -> None:
        self.layer, self.operator = layer, operator
        self.values: dict[relax.Var, relax.Expr] = {}
        self.calls: list[relax.Var] = []
        main = module["main"]
        for block in main.body.blocks:
            for binding in block.bindings:
                self._bind(binding.var, binding.value)
        self.result = self.resolved(main.body.body)

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if isinstance(value, relax.Call):
            if value.op.name != "relax.call_tir":
                raise FewbitsError(
                    "no-kernel",
                    f"operator {self.operator} has no kernel and no TIR"
                    + (f" (its part {value.op.name})" if value.op.name != self.operator else ""),
                    where=self.layer,
                    hint="replace the operator, or run this part of the model on the host",
                )
            self.calls.append(var)
        self.values[var] = value

    def resolved(self, value: relax.Expr) -> relax.Expr:
        """A parameter, a constant, a call's variable or one field of it, or a tuple of those."""
        if isinstance(value, relax.Var) and value in self.values:
            bound = self.values[value]
            return value if isinstance(bound, relax.Call) else self.resolved(bound)
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self.resolved(field) for field in value.fields])
        if isinstance(value, relax.TupleGetItem):
            inner = self.resolved(value.tuple_value)
            if isinstance(inner, relax.Tuple):
                return inner.fields[value.index]
            return relax.TupleGetItem(inner, value.index)
        return value


def _one_function(layer: str, operator: str, module: ir.IRModule) -> Legalized:
    flat = _Flattened(layer, operator, module)
    inputs = list(module["main"].params)
    result: Any = flat.result
    results: list[Any] = list(result.fields) if isinstance(result, relax.Tuple) else [result]
    first: Any = results[0]
    if len(flat.calls) == len(results) == 1 and first is not None and first.same_as(flat.calls[0]):
        call = flat.values[flat.calls[0]]
        arguments = [flat.resolved(field) for field in call.args[1].fields]
        sources = tuple(_source(inputs, argument) for argument in arguments)
        function = module[call.args[0]]
        return Legalized(function, sources, len(function.params) - len(sources))
    return _fused(flat, inputs, results, module)


def _source(inputs: list[relax.Var], argument: relax.Expr) -> int | np.ndarray:
    if isinstance(argument, ir.GenericConst):
        return argument.value.numpy()
    return next(i for i, one in enumerate(inputs) if one.same_as(argument))


def _fused(
    flat: _Flattened, inputs: list[relax.Var], results: list[relax.Expr], module: ir.IRModule
) -> Legalized:
    """Several calls (or none) as one PrimFunc, by TVM's FuseTIR."""
    parameters = list(inputs)
    sources: list[int | np.ndarray] = list(range(len(inputs)))
    renamed: dict[relax.Var, relax.Var] = {}
    builder = relax.BlockBuilder()
    lifted: list[tuple[ir.GenericConst, relax.Var]] = []

    def translated(value: relax.Expr) -> relax.Expr:
        if isinstance(value, ir.GenericConst):
            for constant, parameter in lifted:
                if constant.same_as(value):
                    return parameter
            array = value.value.numpy()
            parameter = relax.Var(
                f"c{len(lifted)}", relax.TensorType(array.shape, str(value.ty.dtype))
            )
            lifted.append((value, parameter))
            return parameter
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(translated(value.tuple_value), value.index)
        return renamed.get(value, value)

    steps = []
    for var in flat.calls:
        call = flat.values[var]
        arguments = [translated(flat.resolved(field)) for field in call.args[1].fields]
        steps.append((var, call, arguments))
    results = [translated(value) for value in results]
    parameters += [parameter for _, parameter in lifted]
    sources += [constant.value.numpy() for constant, _ in lifted]

    with builder.function("fused", parameters, attrs={"Primitive": True}, private=True):
        with builder.dataflow():
            for var, call, arguments in steps:
                gvar = builder.add_func(module[call.args[0]], call.args[0].name_hint)
                fields = relax.Tuple([renamed_expression(a, renamed) for a in arguments])
                emitted = builder.emit(
                    relax.Call(call.op, [gvar, fields], call.attrs, call.ty_args)
                )
                renamed[var] = emitted
            outputs = []
            for value in results:
                value = renamed_expression(value, renamed)
                if any(value.same_as(parameter) for parameter in parameters):
                    value = builder.emit_te(topi.identity, value)
                outputs.append(builder.emit_output(value))
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
    fused = builder.get()
    gvar = fused.get_global_var("fused")
    outer = [relax.Var(p.name, p.ty) for p in parameters]
    with builder.function("main", outer):
        with builder.dataflow():
            out = builder.emit_output(relax.Call(gvar, outer))
        builder.emit_func_output(out)
    combined = relax.transform.FuseTIR()(builder.get())
    functions = [f for f in combined.functions.values() if isinstance(f, tirx.PrimFunc)]
    (function,) = functions
    return Legalized(function, tuple(sources), len(function.params) - len(sources))


def renamed_expression(value: relax.Expr, renamed: dict[relax.Var, relax.Var]) -> relax.Expr:
    """A variable of the legalized function, or one field of it, in the fused function."""
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(renamed_expression(value.tuple_value, renamed), value.index)
    return renamed.get(value, value)
