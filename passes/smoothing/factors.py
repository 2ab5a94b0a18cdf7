"""By how much: SmoothQuant's factors, and the search for their exponent (spec 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ...formats.base import NumberFormat
from ...ops.compressed.rounding import round_to
from ...ops.registry import meaning_of
from ..layers import Layer

#: What maxima of weights and factors are raised to, as in the authors' code.
SMALLEST = 1e-5
#: Exponents that are tried.
GRID = tuple(round(0.05 * step, 2) for step in range(21))


def smoothing_factors(
    activation_maxima: np.ndarray, weight_maxima: np.ndarray, alpha: float
) -> np.ndarray:
    """``s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)``, float64 ``[channels]``.

    Weight maxima and factors are at least 1e-5. A channel whose activation is always 0 keeps
    factor 1: it has no range to trade, and would only lose its weights.
    """
    activations = np.asarray(activation_maxima, np.float64)
    weights = np.maximum(np.asarray(weight_maxima, np.float64), SMALLEST)
    factors = np.maximum(activations**alpha / weights ** (1.0 - alpha), SMALLEST)
    return np.where(activations > 0, factors, 1.0)


def tied_maxima(maxima: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The largest of the channels with each label, ``[count]``; 0 where a label has none."""
    tied = np.zeros(count, np.float64)
    np.maximum.at(tied, labels, np.asarray(maxima, np.float64))
    return tied


def input_maxima(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """The largest weight that meets each input channel of a layer.

    `weight` is as the module has it: ``[I, O]`` of a matrix product, ``[O, I/groups, ...]``.
    """
    if layer.kind == "linear":
        return np.abs(weight).max(1)
    groups = layer.groups
    split = np.abs(weight).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return split.max(axis=(1, 3)).reshape(-1)


def on_inputs(layer: Layer, factors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Factors per input channel in a shape that broadcasts against the weight."""
    if layer.kind == "linear":
        return factors[:, None]
    outputs, inputs = weight.shape[:2]
    rows = np.repeat(factors.reshape(layer.groups, inputs), outputs // layer.groups, axis=0)
    return rows.reshape(outputs, inputs, *[1] * (weight.ndim - 2))


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What the product is going to be computed in.

    Attributes:
        activations: their format.
        weights: theirs, with a scale per output channel.
        per_token: each row of a linear layer's input has its own scale; otherwise there is one,
            that covers the calibration set.
    """

    activations: NumberFormat
    weights: NumberFormat
    per_token: bool


class Trial:
    """The squared error of a site's quantized products for given factors.

    Args:
        layers: readers of the activation.
        weights: theirs, as the module has them.
        items: a sample of the activation; the first axis counts items.
        maxima: the activation's largest magnitudes by channel, over all the calibration set.
        arithmetic: what is simulated.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Sequence[np.ndarray],
        items: np.ndarray,
        maxima: np.ndarray,
        arithmetic: Arithmetic,
    ) -> None:
        self._layers, self._weights = layers, weights
        self._items = torch.from_numpy(np.ascontiguousarray(items, np.float32))
        self._maxima, self._arithmetic = maxima, arithmetic
        self._shape = (-1, *[1] * (items.ndim - 2))
        self._exact = [
            self._product(layer, self._items, torch.from_numpy(weight.astype(np.float32)))
            for layer, weight in zip(layers, weights, strict=True)
        ]

    def error(self, factors: np.ndarray) -> float:
        """``sum ||Q(X / s) Q(W s)^T - X W^T||^2`` over the site's layers."""
        inverse = torch.from_numpy((1.0 / factors).astype(np.float32))
        items = self._rounded_items(
            self._items * inverse.reshape(self._shape), float((self._maxima / factors).max())
        )
        total = 0.0
        for layer, weight, exact in zip(self._layers, self._weights, self._exact, strict=True):
            scaled = (weight * on_inputs(layer, factors, weight)).astype(np.float32)
            rounded = self._rounded_weight(layer, torch.from_numpy(scaled))
            error = self._product(layer, items, rounded) - exact
            total += float(error.double().square().sum())
        return total

    def _rounded_items(self, items: torch.Tensor, largest: float) -> torch.Tensor:
        number_format = self._arithmetic.activations
        if self._arithmetic.per_token and items.dim() == 2:
            scale = items.abs().amax(1, keepdim=True) / number_format.reach
        else:
            scale = torch.tensor(largest / number_format.reach)
        scale = scale.clamp(min=2.0**-126)
        return round_to(number_format, items / scale) * scale

    def _rounded_weight(self, layer: Layer, weight: torch.Tensor) -> torch.Tensor:
        number_format = self._arithmetic.weights
        axes = [0] if layer.kind == "linear" else list(range(1, weight.dim()))
        scale = weight.abs().amax(axes, keepdim=True) / number_format.reach
        scale = scale.clamp(min=2.0**-126)
        return round_to(number_format, weight / scale) * scale

    def _product(self, layer: Layer, items: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return meaning_of(layer.operator)(layer.call, items, weight)
