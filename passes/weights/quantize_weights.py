"""The `quantize_weights` pass: weights in few bits, activations untouched."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from tvm import ir

from ...errors import FewbitsError
from ...formats.adaptive import compress_adaptive
from ...formats.base import NumberFormat
from ...formats.compress import compress
from ...formats.compressed import CompressedTensor
from ...formats.scales import ScaleStorage
from ..base import Pass, PassContext, register_pass
from ..layers import Layer, Replacement, find_layers, replace_layers, select_layers
from .options import WeightOptions


@register_pass
@dataclasses.dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Weights of matrix products and convolutions in few bits.

    Attributes:
        format, num_bits, type, strategy, group_size, solver, scale_storage, symmetric, sparsity,
            activation_order, damping: see `WeightOptions`; `format` is int4 where none is given.
        embeddings: tables that are looked up in, too.
        targets: the layers to compress; all if empty.
        ignore: layers that stay as they are.
        overrides: for the layers that an entry selects, other options. Later entries win.
    """

    name: ClassVar[str] = "quantize_weights"

    format: str | None = None
    num_bits: int | None = None
    type: str | None = None
    strategy: str = "group"
    group_size: int = 128
    solver: str = "rtn"
    scale_storage: ScaleStorage = "float16"
    symmetric: bool = True
    sparsity: float | str | None = None
    activation_order: bool = False
    damping: float = 0.01
    embeddings: bool = False
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] | None = None

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with compressed weights; a note says what became of each layer.

        Raises:
            FewbitsError: ``no-calibration``; ``unknown-layer``, ``unknown-option``; whatever makes
                a layer's format, granularity and shape impossible together.
        """
        chosen = self.options_by_layer(module)

        def replace(layer: Layer) -> Replacement | None:
            options = chosen.get(layer.name)
            if options is None:
                return None
            with at(layer):
                tensor = _round(layer.weight, options)
            if not _note(self.name, layer, tensor, context):
                return None
            return Replacement(tensor)

        return replace_layers(module, replace)

    def options_by_layer(self, module: ir.IRModule) -> dict[str, WeightOptions]:
        """The layers to compress, in program order, and how.

        Raises:
            FewbitsError: ``unknown-layer``, ``unknown-option``.
        """
        names = [field.name for field in dataclasses.fields(WeightOptions)]
        base = WeightOptions(**{name: getattr(self, name) for name in names})
        layers = find_layers(module)
        if not self.embeddings and not self.targets:
            layers = [layer for layer in layers if layer.kind != "embedding"]
        layers = [layer for layer in layers if layer.tensor is None]
        selected = select_layers(layers, self.targets, self.ignore, self.name)
        chosen = {layer.name: base for layer in selected}
        for pattern, changes in (self.overrides or {}).items():
            for layer in select_layers(selected, [pattern], pass_name=self.name):
                chosen[layer.name] = chosen[layer.name].changed(changes, pattern)
        return chosen


@contextmanager
def at(layer: Layer) -> Iterator[None]:
    """Errors inside name the layer."""
    try:
        yield
    except FewbitsError as error:
        if error.where is not None:
            raise
        raise FewbitsError(error.code, error.message, where=layer.name, hint=error.hint) from error


def _round(weight: np.ndarray, options: WeightOptions) -> CompressedTensor:
    candidates: tuple[NumberFormat, ...] = options.candidates()
    granularity, storage = options.granularity(), options.scale_storage
    if options.is_adaptive:
        return compress_adaptive(
            weight, candidates, granularity=granularity, scale_storage=storage
        ).tensor
    return compress(
        weight,
        candidates[0],
        granularity=granularity,
        scale_storage=storage,
        method=None if options.symmetric else "affine",
    )


def _note(pass_name: str, layer: Layer, tensor: CompressedTensor, context: PassContext) -> bool:
    """Report what the layer became; False where the few-bit form would not be smaller."""
    weight = layer.weight
    if tensor.total_bits >= 32 * weight.size:
        context.note(pass_name, layer.name, "stays float: its few-bit form would not be smaller")
        return False
    error = float(((weight - tensor.decode()) ** 2).sum(dtype=np.float64))
    signal = float((weight**2).sum(dtype=np.float64))
    sqnr = None if error == 0 or signal == 0 else round(10 * float(np.log10(signal / error)), 2)
    context.note(
        pass_name,
        layer.name,
        f"{tensor.number_format}, {tensor.bits_per_value:.3g} bits a weight",
        format=tensor.number_format.name,
        granularity=str(tensor.granularity),
        code_bits=tensor.code_bits,
        total_bits=tensor.total_bits,
        sqnr_db=sqnr,
    )
    return True
