"""Empirical bias correction (Nagel et al. 2019): take the mean error out of every channel.

Rounded weights and activations shift the mean of what a layer yields. The shift is known from
calibration data, so the layer's bias can make up for it. Layers are corrected in order, each on
the module whose earlier layers are corrected already.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from ..errors import FewbitsError
from .base import Pass, PassContext, register_pass
from .calibration import Calibration
from .quantize.operators import ANCHORS
from .quantize.plan import matches
from .rewrite import Rewriter, as_array, constant, operator_of

#: Biases stay so far from int32's limits that zero points and rounding can be added.
_LARGEST_CODE = 2**29


@register_pass
@dataclasses.dataclass(frozen=True)
class BiasCorrection(Pass):
    """Correct the biases of a quantized module so that channel means are the float module's.

    Attributes:
        ignore: layers that are not corrected, by name, wildcard, ``re:`` pattern or operator.
    """

    name: ClassVar[str] = "bias-correction"
    keeps_symbols: ClassVar[bool] = False

    ignore: tuple[str, ...] = ()

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with other bias codes; layers without a bias are left alone.

        Raises:
            FewbitsError: ``no-calibration``.
        """
        if context.reference is None:
            message = "the model came quantized: there is no float model to correct biases with"
            context.note(self.name, None, message)
            return module
        layers = [
            b for b in _biased_layers(module) if not matches(self.ignore, b.layer, b.operator)
        ]
        if not layers:
            return module
        if context.calibration is None:
            raise FewbitsError(
                "no-calibration",
                "correcting biases needs sample inputs",
                hint="give --calibration data.npz (keys are input names)",
            )
        wanted = _means(context.reference, {b.result: b.axis for b in layers}, context.calibration)
        for biased in layers:
            prefix = _until(module, biased.result)
            found = _means(prefix, {biased.result: biased.axis}, context.calibration)
            module = _shifted(module, biased, wanted[biased.result] - found[biased.result])
        context.note(self.name, None, f"{len(layers)} biases corrected", layers=len(layers))
        return module


@dataclasses.dataclass(frozen=True)
class _Biased:
    """A quantized layer with an int32 bias.

    Attributes:
        layer: its name.
        operator: the float operator.
        result: name of the layer's result with bias, before the activation.
        bias: name of the dequantized bias.
        axis: of the result, which counts channels; negative.
    """

    layer: str
    operator: str
    result: str
    bias: str
    axis: int


def _biased_layers(module: ir.IRModule) -> list[_Biased]:
    rewriter = Rewriter(module)
    found = []
    for var, value in rewriter.bindings:
        if operator_of(value) != "relax.add" or not isinstance(value, relax.Call):
            continue
        for inner, other in (value.args, list(reversed(value.args))):
            operator = operator_of(rewriter.values.get(inner))
            bias: Any = rewriter.values.get(other)
            if operator not in ANCHORS or operator_of(bias) != "relax.dequantize":
                continue
            assert isinstance(bias, relax.Call)
            codes = bias.args[0]
            if isinstance(codes, ir.GenericConst) and codes.ty.dtype == "int32":
                axis = -1 if operator == "relax.matmul" else 1 - len(var.ty.shape.values)
                found.append(_Biased(inner.name, operator, var.name, other.name, axis))
    return found


def _means(
    module: ir.IRModule, axes: dict[str, int], calibration: Calibration
) -> dict[str, np.ndarray]:
    """Mean of each named value per channel, over samples and positions."""
    sums: dict[str, np.ndarray | float] = dict.fromkeys(axes, 0.0)
    counts = dict.fromkeys(axes, 0)
    for values in calibration.run(module, axes):
        for name, axis in axes.items():
            rows = np.moveaxis(values[name], axis, -1)
            rows = rows.reshape(-1, rows.shape[-1])
            sums[name] = sums[name] + rows.sum(0, dtype=np.float64)
            counts[name] += len(rows)
    return {name: np.asarray(sums[name]) / max(counts[name], 1) for name in axes}


def _until(module: ir.IRModule, name: str) -> ir.IRModule:
    """The part of the module that computes one value, as its only output."""
    rewriter = Rewriter(module)
    for var, value in rewriter.bindings:
        new = rewriter.keep(var, value)
        if var.name == name:
            rewriter.attributes["output_names"] = [name]
            return rewriter.finish([new])
    raise AssertionError(f"no value {name!r}")


def _shifted(module: ir.IRModule, biased: _Biased, shift: np.ndarray) -> ir.IRModule:
    """The module with `shift` (one real per channel) added to the layer's bias."""
    rewriter = Rewriter(module)
    for var, value in rewriter.bindings:
        new: relax.Expr = value
        if var.name == biased.bias and isinstance(value, relax.Call):
            codes, scale = as_array(value.args[0]), as_array(value.args[1]).astype(np.float64)
            steps = np.broadcast_to(np.rint(shift / scale), (codes.size,)).reshape(codes.shape)
            total = np.clip(codes + steps, -_LARGEST_CODE, _LARGEST_CODE)
            arguments = [constant(total.astype(np.int32)), *value.args[1:]]
            new = relax.Call(value.op, arguments, value.attrs, value.ty_args)
        rewriter.keep(var, new)
    return rewriter.finish()
