"""Products of int8 activations and int8 weights (spec 2, 4, 7)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tvm_ffi
from tvm import ir, relax

from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerChannel, PerTensor
from ....formats.integer import Integer
from ....formats.parse import parse_format
from ....formats.sparsity import Dense
from ....passes.layers import Layer
from ....passes.rewrite import as_array, constant, operator_of
from ....schedules.cpu.int8_linear import Int8Linear
from ....schedules.cpu.int8_quantize import QuantizeRows, ScaleKind
from ....schedules.cpu.intrinsics_tiles import choose_tile
from ...vm.calls import tensor_type
from .chains import Chain
from .selection import Selection, count, known, leading, padded

#: Longer sums of products of bytes might leave int32.
_LONGEST = 65_000


@dataclasses.dataclass(frozen=True, eq=False)
class _Activation:
    """A call of ``fewbits.fake_quantize`` to integers."""

    x: relax.Expr
    integer: Integer
    kind: ScaleKind
    scale: np.ndarray | None


def int8_linear(selection: Selection, layer: Layer, chain: Chain) -> relax.Var | None:
    """The layer with an int8 kernel; None where its weight or its input is not int8."""
    activation = _activation(selection.rewriter.values.get(layer.input))
    tensor = layer.tensor
    if activation is None or not isinstance(tensor, CompressedTensor):
        return None
    if not _is_int8_rows(tensor) or tensor.shape[1] > _LONGEST:
        return None
    outputs, length = tensor.shape
    dot, lanes = selection.dot, selection.dot.lanes
    words, scales = _codes(selection, activation, layer)
    weight = tensor.number_format.decode(tensor.codes()).astype(np.int8)
    column = np.broadcast_to(tensor.scales.values(), (outputs,)).astype(np.float32)
    if activation.scale is not None:
        column = column * activation.scale
    inputs: list[relax.Expr] = [words] if scales is None else [words, scales]
    inputs += [
        constant(dot.pack_weights(weight)),
        constant(padded(column, lanes, outputs)),
    ]
    correction = None
    if dot.offset:
        sums = -dot.offset * weight.astype(np.int64).sum(axis=1)
        correction = "int16" if np.abs(sums).max(initial=0) < 1 << 15 else "int32"
        inputs.append(constant(padded(sums.astype(correction), lanes, outputs)))
    kernel = Int8Linear(
        dot, known(leading(layer.call)), length, outputs,
        "none" if activation.kind == "static" else activation.kind,
        correction, chain.epilogue,
        choose_tile(selection.machine.registers, -(-outputs // lanes)),
    )  # fmt: skip
    selection.notes[layer.name] = f"int8 {dot.name}"
    return selection.emit_layer(kernel, inputs, chain, outputs, layer.name)


def _is_int8_rows(tensor: CompressedTensor) -> bool:
    """Whether the weight is a dense int8 matrix with a scale per output, or one."""
    integer = tensor.number_format
    return (
        isinstance(integer, Integer)
        and (integer.bits, integer.signed) == (8, True)
        and len(tensor.shape) == 2
        and isinstance(tensor.sparsity, Dense)
        and tensor.zero_points is None
        and tensor.granularity in (PerTensor(), PerChannel(0))
    )


def _activation(value: Any) -> _Activation | None:
    if operator_of(value) != "fewbits.fake_quantize":
        return None
    integer = parse_format(str(value.attrs["format"]))
    if not isinstance(integer, Integer) or not integer.signed:
        return None
    x, *scale = value.args
    if scale:
        return _Activation(x, integer, "static", as_array(scale[0]).reshape(()))
    kind: ScaleKind = "token" if str(value.attrs["granularity"]) == "token" else "tensor"
    return _Activation(x, integer, kind, None)


def _codes(
    selection: Selection, activation: _Activation, layer: Layer
) -> tuple[relax.Expr, relax.Expr | None]:
    """Words and scales of a quantized value; each value is quantized once."""
    x = selection.rewriter.map(activation.x)
    source, factors = _unscaled(selection, activation)
    scale = None if activation.scale is None else float(activation.scale)
    key = (x, (activation.integer, activation.kind, scale))
    if key not in selection.quantized:
        selection.quantized[key] = _quantize(selection, activation, source, factors, layer.name)
    return selection.quantized[key]


def _unscaled(
    selection: Selection, activation: _Activation
) -> tuple[relax.Expr, np.ndarray | None]:
    """What is quantized, as a value times a constant for each channel (smoothing), or as it is."""
    x: Any = activation.x
    call: Any = selection.rewriter.values.get(x)
    if operator_of(call) == "relax.multiply" and activation.kind != "tensor":
        for value, other in (call.args, reversed(call.args)):
            if isinstance(other, ir.GenericConst) and isinstance(value, relax.Var):
                factors, length = as_array(other), int(x.ty.shape.values[-1])
                same = bool(tvm_ffi.structural_equal(value.ty, x.ty))
                if same and factors.size == length and factors.shape[-1:] == (length,):
                    return selection.rewriter.map(value), factors.reshape(length)
    return selection.rewriter.map(x), None


def _quantize(
    selection: Selection,
    activation: _Activation,
    x: Any,
    factors: np.ndarray | None,
    name: str,
) -> tuple[relax.Expr, relax.Expr | None]:
    integer = activation.integer
    sizes = leading(x)
    rows = count(sizes)
    kernel = QuantizeRows(
        selection.dot, known(sizes), int(x.ty.shape.values[-1]),
        integer.minimum, integer.maximum, integer.reach, activation.kind,
        factors is not None,
    )  # fmt: skip
    inputs = [x] if factors is None else [x, constant(factors)]
    words = tensor_type((rows, kernel.words), "int32")
    if activation.scale is not None:
        scale = constant(activation.scale.reshape(1))
        return selection.emit(kernel, [*inputs, scale], [words], name), None
    scales = tensor_type((rows if activation.kind == "token" else 1,), "float32")
    both = selection.emit(kernel, inputs, [words, scales], name)
    first, second = (
        selection.rewriter.emit(relax.TupleGetItem(both, place), name) for place in range(2)
    )
    return first, second
