"""Products whose activations are rounded to int8 or FP8 (spec 2, 4, 7)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import ml_dtypes
import numpy as np
import tvm_ffi
from tvm import ir, relax

from ....formats.base import NumberFormat
from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerChannel, PerTensor
from ....formats.integer import Integer
from ....formats.parse import parse_format
from ....formats.sparsity import Dense as DensePattern
from ....ops.symbolic import extents_of
from ....passes.layers import Layer
from ....passes.rewrite import as_array, constant, operator_of
from ....schedules.cuda.epilogue import scaled
from ....schedules.cuda.quantize import QuantizeRows
from .followers import Followers
from .selection import Operands, Selection
from .sparse import stored_layout

#: Longer sums of products of bytes might leave int32.
LONGEST = 130_000

#: numpy's types of the FP8 formats that tensor cores know, by the format's name.
_FP8: dict[str, Any] = {
    "fp8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Activation:
    """A call of ``fewbits.fake_quantize``."""

    x: relax.Expr
    format: NumberFormat
    scales: Literal["token", "tensor", "static"]
    scale: np.ndarray | None


def quantized_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """int8 times int8 or FP8 times FP8; None for other pairs."""
    activation = activation_of(selection.rewriter.values.get(layer.input))
    tensor = layer.tensor
    if activation is None or not isinstance(tensor, CompressedTensor):
        return None
    weight = _weight(tensor)
    if weight is None or tensor.shape[1] > LONGEST:
        return None
    floats = weight.dtype != np.int8
    if floats != (_fp8(activation.format) is not None):
        return None
    if not floats and not is_int8(activation.format):
        return None
    if floats and not selection.architecture.has_fp8:
        # Levels of FP8 are float16 numbers, and so are their products' sums' terms in float32.
        weight = weight.astype(np.float16)
    outputs = tensor.shape[0]
    column = np.broadcast_to(tensor.scales.values(), (outputs,)).astype(np.float32)
    if activation.scale is not None:
        column = column * activation.scale
    codes, scales = codes_of(selection, activation, weight.dtype, layer.name)
    extra = () if scales is None else (scales,)
    meaning = scaled(
        "float32",
        row=activation.scales == "token",
        one=activation.scales == "tensor",
        accumulator="float32" if floats else "int32",
    )
    operands = Operands(codes, (*extra, constant(column)), meaning)
    layout = stored_layout(tensor, weight)
    return selection.linear(operands, layout, layout.pack(weight), outputs, chain)


def _weight(tensor: CompressedTensor) -> np.ndarray | None:
    """The codes [N, K] as int8 or FP8 numbers: with a scale per output, or one for all.

    They are 0 where a sparse weight stores nothing.
    """
    if len(tensor.shape) != 2:
        return None
    if tensor.zero_points is not None:
        return None
    if tensor.granularity not in (PerTensor(), PerChannel(0)):
        return None
    levels = tensor.number_format
    dtype = np.int8 if is_int8(levels) else _fp8(levels)
    if dtype is None:
        return None
    values = levels.decode(tensor.codes())
    if not isinstance(tensor.sparsity, DensePattern):
        values = np.where(tensor.mask(), values, 0)
    return values.astype(dtype)


def is_int8(levels: NumberFormat) -> bool:
    """Whether all levels are signed bytes."""
    return isinstance(levels, Integer) and levels.signed and levels.bits <= 8


def _fp8(levels: NumberFormat) -> Any:
    return _FP8.get(levels.name)


def activation_of(value: Any) -> Activation | None:
    """The rounding that a value is the result of; None where it is none."""
    if operator_of(value) != "fewbits.fake_quantize":
        return None
    levels = parse_format(str(value.attrs["format"]))
    x, *scale = value.args
    if scale:
        return Activation(x, levels, "static", as_array(scale[0]).reshape(()))
    per_token = str(value.attrs["granularity"]) == "token"
    return Activation(x, levels, "token" if per_token else "tensor", None)


def codes_of(
    selection: Selection, activation: Activation, dtype: Any, name: str
) -> tuple[relax.Expr, relax.Expr | None]:
    """Codes and scales of a quantized value; each value is quantized once."""
    source, factors = _unscaled(selection, activation)
    scale = None if activation.scale is None else float(activation.scale)
    # Constants have no hash of their content; a value's factors follow from the value.
    key = (
        selection.rewriter.map(activation.x), activation.format.name, activation.scales, scale,
        str(dtype),
    )  # fmt: skip
    if key not in selection.quantized:
        selection.quantized[key] = _quantize(selection, activation, dtype, source, factors, name)
    return selection.quantized[key]


def _unscaled(selection: Selection, activation: Activation) -> tuple[relax.Expr, np.ndarray | None]:
    """What is quantized, as a value times a constant for each channel (smoothing), or as it is."""
    x: Any = activation.x
    if x in selection.made:  # the multiplication is part of a product's kernel already
        return selection.rewriter.map(x), None
    call: Any = selection.rewriter.values.get(x)
    if operator_of(call) == "relax.multiply":
        for value, other in (call.args, reversed(call.args)):
            if isinstance(other, ir.GenericConst) and isinstance(value, relax.Var):
                factors, length = as_array(other), int(x.ty.shape.values[-1])
                same = bool(tvm_ffi.structural_equal(value.ty, x.ty))
                if same and factors.size == length and factors.shape[-1:] == (length,):
                    return selection.rewriter.map(value), factors.reshape(length)
    return selection.rewriter.map(x), None


def _quantize(
    selection: Selection,
    activation: Activation,
    dtype: Any,
    source: relax.Expr,
    factors: np.ndarray | None,
    name: str,
) -> tuple[relax.Expr, relax.Expr | None]:
    levels = activation.format
    x = selection.converted(source, selection.dtype, name)
    known = all(isinstance(size, int) for size in extents_of(x)[1:])
    if activation.scales == "tensor" and not known:
        # Where an index is divided by several sizes that are not known, TVM's code for the host
        # names a variable twice; rows have one.
        x = selection.matrix(x, selection.dtype, name)
    sizes = extents_of(x)
    floats = _fp8(levels)
    low, high = float(levels.levels()[0]), float(levels.levels()[-1])
    leading = tuple(size if isinstance(size, int) else None for size in sizes[:-1])
    kernel = QuantizeRows(
        leading, int(sizes[-1]), selection.dtype, str(np.dtype(dtype)),
        None if floats is None else str(np.dtype(floats)), low, high, float(levels.reach),
        activation.scales, factors is not None,
    )  # fmt: skip
    rest = [] if factors is None else [constant(np.ascontiguousarray(factors, np.float32))]
    if activation.scale is not None:
        rest.append(constant(activation.scale.reshape(1).astype(np.float32)))
    return selection.quantize(kernel, x, rest, name)
