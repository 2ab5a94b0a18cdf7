"""The model's interface in integers: inputs and outputs become int8 where they are quantized."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import ir, relax

from ..ops.compressed import OPERATORS as COMPRESSED
from .integer_only.context import scalar_parameters
from .rewrite import Rewriter, operator_of, variables


@dataclasses.dataclass(frozen=True)
class Interface:
    """How to turn the user's real values into codes and back, by position; None: as they are."""

    inputs: tuple[tuple[float, int] | None, ...]
    outputs: tuple[tuple[float, int] | None, ...]


def integer_interface(module: ir.IRModule) -> tuple[ir.IRModule, Interface]:
    """Move the outermost quantize and dequantize out of the module.

    An input all of whose users quantize it in the same way becomes int8; an output that is the
    dequantized value of an int8 tensor becomes that tensor.
    """
    old = Rewriter(module)
    users: dict[relax.Var, list[relax.Call | None]] = {p: [] for p in old.parameters}
    for _, value in old.bindings:
        for variable in variables(value):
            if variable in users:
                is_quantize = operator_of(value) == "relax.quantize"
                users[variable].append(value if is_quantize else None)
    for variable in variables(old.function.body.body):
        if variable in users:
            users[variable].append(None)
    parameters: list[relax.Var] = []
    inputs: list[tuple[float, int] | None] = []
    for parameter in old.parameters:
        known = {scalar_parameters(c) if c is not None else None for c in users[parameter]}
        only = next(iter(known)) if len(known) == 1 else None
        int8 = all(c is not None and c.attrs.out_dtype == "int8" for c in users[parameter])
        if only is not None and int8:
            ty = relax.TensorType(parameter.ty.shape, "int8")
            parameters.append(relax.Var(parameter.name, ty))
            inputs.append(only)
        else:
            parameters.append(parameter)
            inputs.append(None)
    rewriter = Rewriter(module, parameters)
    raw = {
        before: after
        for before, after, known in zip(old.parameters, parameters, inputs, strict=True)
        if known is not None
    }
    for var, value in rewriter.bindings:
        is_quantize = operator_of(value) == "relax.quantize"
        if is_quantize and isinstance(value, relax.Call) and value.args[0] in raw:
            rewriter.replace(var, raw[value.args[0]])
        else:
            rewriter.keep(var, value)
    body = rewriter.function.body.body
    results = list(body.fields) if isinstance(body, relax.Tuple) else [body]
    outputs: list[tuple[float, int] | None] = []
    expressions: list[relax.Expr] = []
    for result in results:
        value: Any = rewriter.values.get(result)
        parameters_of = None
        if operator_of(value) == "relax.dequantize" and isinstance(value, relax.Call):
            parameters_of = scalar_parameters(value)
        if parameters_of is not None and value.args[0].ty.dtype == "int8":
            expressions.append(rewriter.map(value.args[0]))
        else:
            parameters_of = None
            expressions.append(rewriter.map(result))
        outputs.append(parameters_of)
    return rewriter.finish(expressions), Interface(tuple(inputs), tuple(outputs))


def quantization_of(module: ir.IRModule, interface: Interface) -> dict[str, tuple[float, int]]:
    """(scale, zero point) of every int8 value by name, where it is known.

    Our operators say what their outputs mean; data movement keeps its input's meaning.
    """
    function = module["main"]
    known: dict[str, tuple[float, int]] = {}
    for parameter, meaning in zip(function.params, interface.inputs, strict=True):
        if meaning is not None:
            known[parameter.name] = meaning
    for block in function.body.blocks:
        for binding in block.bindings:
            value, name = binding.value, binding.var.name
            operator = operator_of(value)
            if operator in COMPRESSED:
                continue  # float values
            if operator is not None and operator.startswith("fewbits."):
                known[name] = (float(value.attrs["scale"]), int(value.attrs["zero_point"]))
            elif operator == "relax.quantize":
                parameters = scalar_parameters(value)
                if parameters is not None:
                    known[name] = parameters
            elif operator != "relax.dequantize":
                sources = [v.name for v in variables(value) if v.name in known]
                if sources:
                    known[name] = known[sources[0]]
    return known
