"""LLM.int8 (Dettmers et al. 2022, spec 2): int8 products, but for the few columns with outliers.

In large transformers the same few columns of an activation hold values many times larger than all
others. They alone ruin an int8 scale, so they are multiplied apart: ``Y = X8 W8^T + X[:, O]
W[:, O]^T``. What is left has vector-wise scales: one for each row of X and each row of W.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np
from tvm import ir, relax

from ..errors import FewbitsError
from ..formats.base import NumberFormat
from ..formats.compress import compress
from ..formats.compressed import CompressedTensor
from ..formats.granularity import PerChannel
from ..formats.parse import parse_format
from ..ops.compressed.activations import fake_quantize_call, outlier_columns_call
from ..ops.compressed.weights import decode_call
from .activations.checks import refuse_compressed
from .base import Pass, PassContext, register_pass
from .channel_statistics import observe_inputs
from .layers import Layer, find_layers, select_layers
from .rewrite import Rewriter, constant

_op: Any = relax.op


@register_pass
@dataclasses.dataclass(frozen=True)
class SplitOutliers(Pass):
    """Quantize linear layers in int8 with the outlier columns of their inputs multiplied apart.

    Attributes:
        mode: ``static``: the columns are those that reach the threshold on the calibration data.
            ``dynamic``: they are found in each input, at run time.
        threshold: smallest magnitude that makes a column an outlier; 0: none is.
        outlier_weights: how weights of outlier columns are kept: ``float16`` (the paper, default
            of ``static``), or ``int8``, those of the other product (the authors' code, default of
            ``dynamic``, where float16 means all weights a second time).
        capacity: most outlier columns of a layer. Static: layers with more keep their weights in
            float16. Dynamic: inputs with more are multiplied without quantization.
        format: of activations and weights.
        targets: linear layers, all if empty.
        ignore: linear layers that stay as they are.
    """

    name: ClassVar[str] = "split_outliers"

    mode: Literal["static", "dynamic"] = "static"
    threshold: float = 6.0
    outlier_weights: Literal["float16", "int8"] | None = None
    capacity: int = 64
    format: str = "int8-narrow"
    targets: tuple[str, ...] = ("linear",)
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.threshold < 0 or self.capacity < 0:
            raise FewbitsError(
                "unknown-option",
                "pass split_outliers: threshold and capacity are not negative",
                hint="threshold: 0 for no outliers at all",
            )

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with these layers split; the count of outlier columns is noted for each.

        Raises:
            FewbitsError: ``no-calibration`` (static), ``already-compressed``, ``unknown-layer``,
                ``unknown-format``.
        """
        number_format = parse_format(self.format)
        layers = [layer for layer in find_layers(module) if layer.kind == "linear"]
        chosen = select_layers(layers, self.targets, self.ignore, self.name) if layers else []
        hint = (
            "split_outliers quantizes weights and activations itself: ignore its layers elsewhere"
        )
        refuse_compressed(module, chosen, hint)
        chosen = [layer for layer in chosen if isinstance(layer.input, relax.Var)]
        if not chosen:
            return module
        outliers = self._outliers(module, chosen, context)
        emitter = _Emitter(Rewriter(module), number_format)
        by_var = {layer.var: layer for layer in chosen}
        for var, value in emitter.rewriter.bindings:
            layer = by_var.get(var)
            if layer is None:
                emitter.rewriter.keep(var, value)
            elif outliers is None:
                mask = (self.threshold, self.capacity)
                new = emitter.dynamic(layer, *mask, self.outlier_weights == "float16")
                emitter.rewriter.replace(var, new)
            else:
                new = self._static(layer, outliers[layer.input.name], emitter, context)  # pyright: ignore[reportAttributeAccessIssue]
                emitter.rewriter.replace(var, new)
        return emitter.rewriter.finish()

    def _outliers(
        self, module: ir.IRModule, layers: list[Layer], context: PassContext
    ) -> dict[str, np.ndarray] | None:
        """The outlier columns of each layer's input, ascending; None when found at run time."""
        if self.threshold == 0:
            return {layer.input.name: np.zeros(0, np.int64) for layer in layers}  # pyright: ignore[reportAttributeAccessIssue]
        if self.mode == "dynamic":
            return None
        if context.calibration is None:
            raise FewbitsError(
                "no-calibration",
                "which columns hold outliers is found on sample inputs",
                hint="give --calibration data.npz, or take mode: dynamic",
            )
        seen = observe_inputs(module, layers, context.calibration)
        return {
            name: np.flatnonzero(statistics.maxima >= self.threshold)
            for name, statistics in seen.items()
        }

    def _static(
        self, layer: Layer, columns: np.ndarray, emitter: _Emitter, context: PassContext
    ) -> relax.Var:
        inputs = layer.shape[1]
        data = {"outliers": len(columns), "columns": inputs}
        if len(columns) > self.capacity:
            text = f"{len(columns)} of {inputs} columns are outliers: weights stay in float16"
            context.note(self.name, layer.name, text, **data)
            return emitter.float16(layer)
        context.note(self.name, layer.name, f"{len(columns)} outliers of {inputs} columns", **data)
        return emitter.static(layer, columns, self.outlier_weights != "int8")


class _Emitter:
    """Writes the patterns of docs/architecture.md; layers that read the same value share theirs."""

    def __init__(self, rewriter: Rewriter, number_format: NumberFormat) -> None:
        self.rewriter = rewriter
        self._format = number_format
        self._shared: dict[tuple[relax.Expr, str], relax.Var] = {}

    def static(self, layer: Layer, columns: np.ndarray, in_float16: bool) -> relax.Var:
        """``fake_quantize(x keep) W8^T + take(x, columns) W[:, columns]^T``."""
        weight = layer.weight
        if not len(columns):
            return self._plain(layer, compress(weight, self._format, granularity=PerChannel(0)))
        # Columns that have weights of their own meet only zeros in the int8 product.
        apart = np.isin(np.arange(weight.shape[1]), columns)
        eight = np.where(apart, np.float32(0), weight) if in_float16 else weight
        tensor = compress(eight, self._format, granularity=PerChannel(0))
        x, name = self.rewriter.map(layer.input), layer.name

        def kept() -> relax.Expr:
            keep = constant((~apart).astype(np.float32))
            product = self._emit(_op.multiply(x, keep), name)
            return fake_quantize_call(product, self._format)

        def taken() -> relax.Expr:
            return _op.take(x, constant(columns.astype(np.int64)), axis=-1)

        inner = self._once(x, "kept", kept, name)
        outer = self._once(x, "taken", taken, name)
        first = self._product(inner, decode_call(tensor), name)
        if in_float16:
            half = _half(weight[:, columns], layer)
            second = self._product(outer, _op.astype(half, "float32"), name)
        else:
            second = self._product(outer, decode_call(_columns(tensor, columns)), name)
        return self.rewriter.emit(_op.add(first, second), name)

    def dynamic(self, layer: Layer, threshold: float, capacity: int, in_float16: bool) -> relax.Var:
        """With a mask found at run time, 1 where a column of this input is an outlier."""
        tensor = compress(layer.weight, self._format, granularity=PerChannel(0))
        x, name = self.rewriter.map(layer.input), layer.name
        one = relax.const(1.0, "float32")

        def mask() -> relax.Expr:
            return outlier_columns_call(x, threshold, capacity)

        def kept() -> relax.Expr:
            others = self._emit(_op.subtract(one, found), name)
            product = self._emit(_op.multiply(x, others), name)
            return fake_quantize_call(product, self._format)

        found = self._once(x, "mask", mask, name)
        inner = self._once(x, "kept", kept, name)
        outer = self._once(x, "outliers", lambda: _op.multiply(x, found), name)
        weight = self._transposed(decode_call(tensor), name)
        wide = weight
        if in_float16:
            wide = self._transposed(_op.astype(_half(layer.weight, layer), "float32"), name)
        products = [
            self._emit(_op.matmul(side, matrix), name)
            for side, matrix in ((inner, weight), (outer, wide))
        ]
        return self.rewriter.emit(_op.add(*products), name)

    def float16(self, layer: Layer) -> relax.Var:
        """Not quantized: ``x W^T`` with float16 weights."""
        weight = _op.astype(_half(layer.weight, layer), "float32")
        return self._product(self.rewriter.map(layer.input), weight, layer.name)

    def _plain(self, layer: Layer, tensor: CompressedTensor) -> relax.Var:
        def quantize() -> relax.Expr:
            return fake_quantize_call(self.rewriter.map(layer.input), self._format)

        x = self._once(self.rewriter.map(layer.input), "all", quantize, layer.name)
        return self._product(x, decode_call(tensor), layer.name)

    def _product(self, x: relax.Expr, weight: relax.Expr, name: str) -> relax.Var:
        return self._emit(_op.matmul(x, self._transposed(weight, name)), name)

    def _transposed(self, weight: relax.Expr, name: str) -> relax.Var:
        return self._emit(_op.permute_dims(self._emit(weight, name)), name)

    def _once(self, x: relax.Expr, key: str, make: Any, name: str) -> relax.Var:
        if (x, key) not in self._shared:
            made = make()
            new = made if isinstance(made, relax.Var) else self._emit(made, name)
            self._shared[x, key] = new
        return self._shared[x, key]

    def _emit(self, value: relax.Expr, name: str) -> relax.Var:
        return self.rewriter.emit(value, name)


def _half(weight: np.ndarray, layer: Layer) -> ir.GenericConst:
    """Weights as a float16 constant."""
    largest = float(np.finfo(np.float16).max)
    if np.abs(weight).max(initial=0.0) > largest:
        raise FewbitsError(
            "scale-overflow",
            f"a weight is larger than float16's {largest:.0f}",
            where=layer.name,
            hint="outlier_weights: int8",
        )
    return constant(weight.astype(np.float16))


def _columns(tensor: CompressedTensor, columns: np.ndarray) -> CompressedTensor:
    """Some columns of a compressed matrix, with the codes and scales that they have there."""
    return CompressedTensor.from_codes(
        np.ascontiguousarray(tensor.codes()[:, columns]),
        tensor.number_format,
        tensor.granularity,
        tensor.scales,
    )
