"""Activations in few bits: what layers with weights read is rounded just before their product.

Symmetric, so that a product needs no correction for zero points; per row (token) or for the whole
tensor, with scales found at run time or on calibration data. Weights are `quantize_weights`'
business: the two passes work on different sides of a product, in either order.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from tvm import ir, relax

from ..errors import FewbitsError
from ..formats.affine import AffineFormat
from ..formats.base import NumberFormat
from ..formats.integer import Integer
from ..formats.parse import parse_format
from ..ops.compressed.activations import fake_quantize_call
from .activations.products import Operand, product_operands
from .base import Pass, PassContext, register_pass
from .layers import Layer, find_layers, select_layers
from .observers import Observer, make_observer
from .quantize.plan import matches
from .rewrite import Rewriter, constant, operator_of

Strategy = Literal["token", "tensor"]
#: Observers that weigh rounding errors know uniform grids only.
_ANY_FORMAT = ("minmax", "moving", "percentile")


@register_pass
@dataclasses.dataclass(frozen=True)
class QuantizeActivations(Pass):
    """Round the inputs of linear layers and convolutions to a few-bit format.

    A layer whose input is rounded already is left alone, so a recipe names exceptions first and
    everything else after them.

    Attributes:
        format: ``int8-narrow`` (-127..127), ``fp8_e4m3fn``, any signed format.
        strategy: values with a common scale: ``token``, each row of a linear layer's input
            (spec 2, 4); ``tensor``. Convolutions read windows, not rows: theirs is ``tensor``.
        dynamic: scales are the largest magnitude at run time; otherwise, for ``tensor``, they are
            constants from calibration data.
        observer: of calibration data: ``minmax``, ``moving``, ``percentile``, ``mse``,
            ``entropy``; the last two for integers.
        percentile: of the observer of that name.
        products: also both sides of products without weights, attention's ``Q K^T`` and ``P V``.
            The right side gets a scale per token only where it is transposed just before.
        targets: layers, all linear ones and convolutions if empty.
        ignore: layers that keep float inputs.
    """

    name: ClassVar[str] = "quantize_activations"

    format: str = "int8-narrow"
    strategy: Strategy = "token"
    dynamic: bool = True
    observer: str = "minmax"
    percentile: float = 99.99
    products: bool = False
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with ``fewbits.fake_quantize`` before these products.

        Raises:
            FewbitsError: ``no-calibration`` (static), ``unknown-layer``, ``unknown-format``,
                ``unknown-observer``, ``unknown-option``, ``unsigned-format``.
        """
        number_format = self._checked_format()
        rewriter = Rewriter(module)
        operands = self._operands(module, rewriter, context)
        scales = {} if self.dynamic else self._scales(module, operands, number_format, context)
        by_var: dict[relax.Var, list[Operand]] = {}
        for operand in operands:
            by_var.setdefault(operand.var, []).append(operand)
        # Values that several layers read are rounded once for all of them.
        shared: dict[tuple[relax.Expr, str], relax.Expr] = {}
        for var, value in rewriter.bindings:
            if var not in by_var:
                rewriter.keep(var, value)
                continue
            assert isinstance(value, relax.Call)
            arguments = [rewriter.map(argument) for argument in value.args]
            for operand in by_var[var]:
                source = arguments[operand.place]
                key = (source, operand.strategy)
                if key not in shared:
                    scale = scales.get(operand.source)
                    made = fake_quantize_call(source, number_format, operand.strategy, scale)
                    shared[key] = rewriter.emit(made, operand.layer)
                arguments[operand.place] = shared[key]
            call = relax.Call(value.op, arguments, value.attrs, value.ty_args)
            rewriter.replace(var, rewriter.emit(call, var.name))
        return rewriter.finish()

    def _checked_format(self) -> NumberFormat:
        number_format = parse_format(self.format)
        if not number_format.signed:
            raise FewbitsError(
                "unsigned-format",
                f"{number_format} has no negative levels, and activations have no zero point here",
                hint="take a signed format",
            )
        if not self.dynamic and self.strategy == "token":
            raise FewbitsError(
                "unknown-option",
                f"pass {self.name}: a scale per token is found at run time",
                hint="dynamic: true, or strategy: tensor",
            )
        make_observer(self.observer)
        if not isinstance(number_format, Integer) and self.observer not in _ANY_FORMAT:
            raise FewbitsError(
                "unknown-option",
                f"pass {self.name}: the observer {self.observer} is for integers",
                hint=f"for {number_format} one of {', '.join(_ANY_FORMAT)}",
            )
        return number_format

    def _operands(
        self, module: ir.IRModule, rewriter: Rewriter, context: PassContext
    ) -> list[Operand]:
        """Where something has to be rounded, in program order."""
        layers = [layer for layer in find_layers(module) if layer.kind != "embedding"]
        products = product_operands(module, self.strategy) if self.products else []
        chosen = self._select(layers, context)
        operands = [self._operand(layer, context) for layer in chosen]
        operands += [o for o in products if not _is_named(o.layer, self.ignore)]
        return [
            operand
            for operand in operands
            if operator_of(rewriter.values.get(operand.source)) != "fewbits.fake_quantize"
        ]

    def _select(self, layers: list[Layer], context: PassContext) -> list[Layer]:
        if not layers and not self.targets:
            context.note(self.name, None, "the model has no layers with weights")
            return []
        chosen = select_layers(layers, self.targets, self.ignore, self.name)
        return [layer for layer in chosen if isinstance(layer.input, relax.Var)]

    def _operand(self, layer: Layer, context: PassContext) -> Operand:
        strategy: Strategy = self.strategy
        if strategy == "token" and layer.kind == "convolution":
            strategy = "tensor"
            context.note(self.name, layer.name, "a convolution has no tokens: one scale in all")
        return Operand(layer.name, layer.var, 0, layer.input, strategy)

    def _scales(
        self,
        module: ir.IRModule,
        operands: list[Operand],
        number_format: NumberFormat,
        context: PassContext,
    ) -> dict[relax.Expr, ir.GenericConst]:
        """A constant scale for each value that is rounded."""
        if context.calibration is None:
            raise FewbitsError(
                "no-calibration",
                "constant scales of activations need sample inputs",
                hint="give --calibration data.npz, or take dynamic: true",
            )

        def make(_: str) -> Observer:
            return make_observer(self.observer, self.percentile)

        sources = {operand.source.name: operand.source for operand in operands}  # pyright: ignore[reportAttributeAccessIssue]
        seen = context.calibration.observe(module, sources, make)
        return {
            source: constant(np.float32(_static_scale(seen[name], number_format)))
            for name, source in sources.items()
        }


def _static_scale(observer: Observer, number_format: NumberFormat) -> float:
    """The symmetric scale that an observer recommends; 1 where everything is 0."""
    bits, narrow = 8, True
    if isinstance(number_format, Integer):
        bits, narrow = number_format.bits, number_format.narrow
    low, high = observer.range(AffineFormat(bits, symmetric=True, narrow=narrow))
    scale = np.float32(max(-low, high, 0.0) / number_format.reach)
    return float(scale) if scale > np.finfo(np.float32).tiny else 1.0


def _is_named(name: str, entries: tuple[str, ...]) -> bool:
    return matches(entries, name, "relax.matmul")
