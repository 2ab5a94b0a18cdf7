"""Activations in few bits: what layers with weights read is rounded just before their product.

Symmetric, so that a product needs no correction for zero points; per row (token) or for the whole
tensor, with scales found at run time or on calibration data. Weights are `quantize_weights`'
business: the two passes work on different sides of a product, in either order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from tvm import ir, relax

from ..errors import FewbitsError
from ..ops.compressed.activations import fake_quantize_call
from .activations.options import ActivationOptions, Strategy
from .activations.products import Operand, product_operands
from .activations.sign import never_negative
from .base import Pass, PassContext, register_pass
from .layers import Layer, find_layers, select_layers
from .observers import Observer
from .quantize.plan import matches
from .rewrite import Rewriter, operator_of

_KINDS = ("linear", "convolution", "embedding")


@register_pass
@dataclasses.dataclass(frozen=True)
class QuantizeActivations(Pass):
    """Round the inputs of linear layers and convolutions to a few-bit format.

    A layer whose input is rounded already is left alone.

    Attributes:
        format: ``int8-narrow`` (-127..127), ``fp8_e4m3fn``, any signed format.
        strategy: values with a common scale: ``token``, each row of a linear layer's input
            (spec 2, 4); ``tensor``. Convolutions read windows, not rows: theirs is ``tensor``.
        dynamic: scales are the largest magnitude at run time; otherwise, for ``tensor``, they are
            constants from calibration data.
        observer: of calibration data: ``minmax``, ``moving``, ``percentile``, ``mse``,
            ``entropy``; the last two for integers.
        percentile: of the observer of that name.
        nonnegative: another format for inputs that are never negative, as after ReLU: one without
            a sign has a level more for each bit. None: `format` is for all.
        products: also both sides of products without weights, attention's ``Q K^T`` and ``P V``.
            The right side gets a scale per token only where it is transposed just before.
        targets: layers, all linear ones and convolutions if empty.
        ignore: layers that keep float inputs, and products.
        overrides: for the layers that an entry selects, other options. Later entries win.
    """

    name: ClassVar[str] = "quantize_activations"

    format: str = "int8-narrow"
    strategy: Strategy = "token"
    dynamic: bool = True
    observer: str = "minmax"
    percentile: float = 99.99
    nonnegative: str | None = None
    products: bool = False
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] | None = None

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with ``fewbits.fake_quantize`` before these products.

        Raises:
            FewbitsError: ``no-calibration`` (static), ``unknown-layer``, ``unknown-format``,
                ``unknown-observer``, ``unknown-option``, ``unsigned-format``.
        """
        rewriter = Rewriter(module)
        operands = self._operands(module, rewriter, context)
        scales = _static_scales(module, operands, context)
        by_var: dict[relax.Var, list[Operand]] = {}
        for operand in operands:
            by_var.setdefault(operand.var, []).append(operand)
        # Values that several layers read are rounded once for all that ask for the same.
        shared: dict[tuple[relax.Expr, ActivationOptions], relax.Expr] = {}
        for var, value in rewriter.bindings:
            if var not in by_var:
                rewriter.keep(var, value)
                continue
            assert isinstance(value, relax.Call)
            arguments = [rewriter.map(argument) for argument in value.args]
            for operand in by_var[var]:
                options, source = operand.options, arguments[operand.place]
                if (source, options) not in shared:
                    scale = scales.get((operand.source, options))
                    made = fake_quantize_call(
                        source, options.number_format, options.strategy, scale
                    )
                    shared[source, options] = rewriter.emit(made, operand.layer)
                arguments[operand.place] = shared[source, options]
            call = relax.Call(value.op, arguments, value.attrs, value.ty_args)
            rewriter.replace(var, rewriter.emit(call, var.name))
        return rewriter.finish()

    def _operands(
        self, module: ir.IRModule, rewriter: Rewriter, context: PassContext
    ) -> list[Operand]:
        """What has to be rounded, in program order, and how."""
        names = [field.name for field in dataclasses.fields(ActivationOptions)]
        base = ActivationOptions(**{name: getattr(self, name) for name in names})
        products = product_operands(module, base) if self.products else []
        kept = [o for o in products if not matches(self.ignore, o.layer, "relax.matmul")]
        left = {o.layer for o in products} - {o.layer for o in kept}
        chosen = self._layers(module, base, left, context)
        operands = [self._operand(layer, chosen[layer], rewriter, context) for layer in chosen]
        return [
            operand
            for operand in (*operands, *kept)
            if operator_of(rewriter.values.get(operand.source)) != "fewbits.fake_quantize"
        ]

    def _layers(
        self, module: ir.IRModule, base: ActivationOptions, left: set[str], context: PassContext
    ) -> dict[Layer, ActivationOptions]:
        """The layers with weights whose inputs are rounded, and how; `left` are products."""
        layers = [
            layer
            for layer in find_layers(module)
            if layer.kind != "embedding" and isinstance(layer.input, relax.Var)
        ]
        if not layers and not self.targets:
            context.note(self.name, None, "the model has no layers with weights")
            return {}
        # An entry that only products match is not a layer's misspelt name.
        ignore = [
            entry
            for entry in self.ignore
            if entry in _KINDS
            or any(matches([entry], layer.name, layer.operator) for layer in layers)
            or not any(matches([entry], name, "relax.matmul") for name in left)
        ]
        chosen = dict.fromkeys(select_layers(layers, self.targets, ignore, self.name), base)
        for pattern, changes in (self.overrides or {}).items():
            for layer in select_layers(chosen, [pattern], pass_name=self.name):
                chosen[layer] = chosen[layer].changed(changes, pattern)
        return chosen

    def _operand(
        self, layer: Layer, options: ActivationOptions, rewriter: Rewriter, context: PassContext
    ) -> Operand:
        if never_negative(rewriter, layer.input):
            options = options.for_nonnegative()
        if options.strategy == "token" and layer.kind == "convolution":
            options = dataclasses.replace(options, strategy="tensor")
            context.note(self.name, layer.name, "a convolution has no tokens: one scale in all")
        return Operand(layer.name, layer.var, 0, layer.input, options)


def _static_scales(
    module: ir.IRModule, operands: list[Operand], context: PassContext
) -> dict[tuple[relax.Var, ActivationOptions], ir.GenericConst]:
    """A constant scale for each value that gets one; one run over the samples for each kind."""
    static = {(o.source, o.options): o.options for o in operands if not o.options.dynamic}
    if not static:
        return {}
    if context.calibration is None:
        raise FewbitsError(
            "no-calibration",
            "constant scales of activations need sample inputs",
            hint="give --calibration data.npz, or take dynamic: true",
        )
    scales: dict[tuple[relax.Var, ActivationOptions], ir.GenericConst] = {}
    for options in dict.fromkeys(static.values()):
        sources = {source.name: source for source, how in static if how == options}

        def make(_: str, options: ActivationOptions = options) -> Observer:
            return options.make_observer()

        seen = context.calibration.observe(module, sources, make)
        for name, source in sources.items():
            scales[source, options] = relax.const(
                float(options.static_scale(seen[name])), "float32"
            )
    return scales
