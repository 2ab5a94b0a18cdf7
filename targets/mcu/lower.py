"""Integer Relax to a `Program`: every binding becomes a kernel call, an alias or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import ir, relax

from ...errors import FewbitsError
from .few_bits import few_bit_weight
from .lowering import RULES
from .lowering.movement import constant_call, copy_call
from .program import DTYPE_BYTES, Buffer, KernelCall, Program
from .target import McuTarget
from .tir import lower_with_tir

#: Operators whose result is the same bytes in the same order.
ALIASES = frozenset(
    {"relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.memory_view"}
)


def lower(
    module: ir.IRModule,
    target: McuTarget,
    name: str,
    quantization: Mapping[str, tuple[float, int]],
) -> Program:
    """Choose a kernel for every operator.

    Args:
        module: static shapes, integer form (float islands allowed), see docs/architecture.md.
        target: the core that the kernels are chosen for.
        name: the model's name.
        quantization: (scale, zero point) of int8 values by variable name.

    Raises:
        FewbitsError: ``no-kernel`` for an operator that has neither a kernel nor a TIR route,
            ``unsupported-dtype`` for a value that firmware cannot hold.
    """
    return _Lowering(module, target, name, quantization).run()


class _Lowering:
    def __init__(
        self,
        module: ir.IRModule,
        target: McuTarget,
        name: str,
        quantization: Mapping[str, tuple[float, int]],
    ) -> None:
        self.function = module["main"]
        self.target = target
        self.name = name
        self.quantization = quantization
        self.buffers: dict[relax.Var, Buffer] = {}
        self.tuples: dict[relax.Var, list[Buffer]] = {}
        self.constants: dict[relax.Var, np.ndarray] = {}
        self.weights: dict[relax.Var, relax.Call] = {}
        self.aliases: dict[str, Buffer] = {}
        self.calls: list[KernelCall] = []

    def run(self) -> Program:
        for parameter in self.function.params:
            self.buffers[parameter] = self._buffer(parameter.name, parameter.ty)
        for block in self.function.body.blocks:
            for binding in block.bindings:
                self._bind(binding.var, binding.value)
        body = self.function.body.body
        results = body.fields if isinstance(body, relax.Tuple) else [body]
        names = [str(n) for n in self.function.attrs["output_names"]]
        outputs = []
        for result, output_name in zip(results, names, strict=True):
            outputs.append(self._output(result, output_name, outputs))
        inputs = tuple(self.buffers[p] for p in self.function.params)
        return Program(
            self.name, inputs, tuple(outputs), tuple(self.calls), self.aliases, tuple(names)
        )

    def _buffer(self, name: str, ty: relax.TensorType) -> Buffer:
        shape = tuple(int(d) for d in ty.shape.values)
        dtype = str(ty.dtype)
        if dtype not in DTYPE_BYTES:
            raise FewbitsError(
                "unsupported-dtype",
                f"microcontroller code has no {dtype} tensors",
                where=name,
                hint=f"supported: {', '.join(DTYPE_BYTES)}",
            )
        scale, zero_point = self.quantization.get(name, (None, 0))
        return Buffer(name, shape, dtype, scale, zero_point)

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if isinstance(value, relax.Var):
            self._same(var, value)
        elif isinstance(value, relax.TupleGetItem):
            self.buffers[var] = self.tuples[value.tuple_value][value.index]
        elif isinstance(value, ir.GenericConst):
            self.constants[var] = value.value.numpy()
        elif isinstance(value, relax.Call):
            self._call(var, value)
        elif isinstance(value, relax.Tuple):
            self.tuples[var] = [self.buffers[field] for field in value.fields]
        else:
            raise FewbitsError(
                "no-kernel", f"cannot lower a {type(value).__name__}", where=var.name
            )

    def _same(self, var: relax.Var, value: relax.Var) -> None:
        if value in self.buffers:
            self.buffers[var] = self.buffers[value]
        elif value in self.tuples:
            self.tuples[var] = self.tuples[value]
        elif value in self.weights:
            self.weights[var] = self.weights[value]
        else:
            self.constants[var] = self.constants[value]

    def _call(self, var: relax.Var, call: relax.Call) -> None:
        operator = call.op.name
        weight = few_bit_weight(call, self.weights)
        if weight is not None:
            self.weights[var] = weight
            return
        inputs: list[Buffer] = []
        constants: dict[int, np.ndarray] = {}
        for index, argument in enumerate(call.args):
            fields = argument.fields if isinstance(argument, relax.Tuple) else [argument]
            if isinstance(argument, relax.Var) and argument in self.tuples:
                inputs += self.tuples[argument]
                continue
            for field in fields:
                if isinstance(field, ir.GenericConst) and field is argument:
                    constants[index] = field.value.numpy()
                elif isinstance(field, relax.Var) and field in self.constants:
                    constants[index] = self.constants[field]
                elif isinstance(field, relax.Var) and field not in self.weights:
                    inputs.append(self.buffers[field])
        if isinstance(var.ty, relax.TupleType):
            pieces = [
                self._buffer(f"{var.name}:{i}", field) for i, field in enumerate(var.ty.fields)
            ]
            self.tuples[var] = pieces
            self._emit(var.name, operator, call, inputs, pieces, constants)
            return
        output = self._buffer(var.name, var.ty)
        if operator in ALIASES and len(inputs) == 1:
            self.buffers[var] = output
            self.aliases[output.name] = self.aliases.get(inputs[0].name, inputs[0])
            return
        self.buffers[var] = output
        self._emit(var.name, operator, call, inputs, [output], constants)

    def _emit(
        self,
        layer: str,
        operator: str,
        call: relax.Call,
        inputs: Sequence[Buffer],
        outputs: Sequence[Buffer],
        constants: Mapping[int, np.ndarray],
    ) -> None:
        rule = RULES.get(operator)
        kernel = None
        # What has no input, or constants inside a tuple, is left to the generic route.
        few_bits = any(isinstance(a, relax.Var) and a in self.weights for a in call.args)
        if rule is not None and inputs and not few_bits and not _constants_in_tuples(call):
            result = outputs if len(outputs) > 1 else outputs[0]
            kernel = rule(layer, call, inputs, result, constants, self.target)
        if kernel is None:
            kernel = lower_with_tir(
                layer, call, inputs, outputs, constants, self.target, self.weights
            )
        self.calls.append(kernel)

    def _output(self, result: relax.Expr, name: str, earlier: Sequence[Buffer]) -> Buffer:
        """The buffer that the caller receives: a copy where it would also be something else's."""
        if isinstance(result, ir.GenericConst):
            return self._constant_output(result.value.numpy(), name, result.ty)
        if result in self.constants:
            return self._constant_output(self.constants[result], name, result.ty)
        if result in self.weights:
            return self._weight_output(result, name)
        buffer = self.buffers[result]
        root = self.aliases.get(buffer.name, buffer)
        taken = {self.aliases.get(b.name, b).name for b in earlier}
        is_input = root.name in {p.name for p in self.function.params}
        if root.name not in taken and not is_input:
            return buffer
        copy = Buffer(f"{name}:copy", buffer.shape, buffer.dtype, buffer.scale, buffer.zero_point)
        self.calls.append(copy_call(name, buffer, copy))
        return copy

    def _constant_output(self, array: np.ndarray, name: str, ty: relax.TensorType) -> Buffer:
        """An output that no input changes is copied from flash."""
        if not self.function.params:
            raise FewbitsError(
                "constant-output",
                "no output depends on an input: there is nothing to compute",
                where=name,
                hint="remove the output from the model, or give the model an input",
            )
        output = self._buffer(f"{name}:constant", ty)
        self.calls.append(constant_call(name, array, output))
        return output

    def _weight_output(self, result: relax.Var, name: str) -> Buffer:
        """An output that is a few-bit weight is decoded into the output."""
        output = self._buffer(f"{name}:weight", result.ty)
        call = self.weights[result]
        self.calls.append(lower_with_tir(name, call, [], [output], {}, self.target, self.weights))
        return output


def _constants_in_tuples(call: relax.Call) -> bool:
    tuples = [argument for argument in call.args if isinstance(argument, relax.Tuple)]
    return any(isinstance(field, ir.GenericConst) for one in tuples for field in one.fields)
