"""What inference backends demand of quantized models: the hardware table of MQBench as data.

Methods look alike until a backend's rules apply: symmetric or affine, per channel or per tensor,
any scale or powers of two (Li et al. 2021; spec 11). `recipe_passes` puts any of these
constraints on the same algorithm, so that results under different backends can be compared.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ..errors import FewbitsError, nearest

Scale = Literal["float", "power-of-two", "log"]


@dataclasses.dataclass(frozen=True)
class TensorRule:
    """How a backend stores weights, or activations.

    Attributes:
        bits: 8 or 16.
        symmetric: zero points are 0.
        per_channel: one scale per output channel (weights only), else one per tensor.
        narrow: the most negative code is not used.
    """

    bits: int = 8
    symmetric: bool = True
    per_channel: bool = False
    narrow: bool = False

    def __str__(self) -> str:
        parts = ["symmetric" if self.symmetric else "affine"]
        parts.append("per channel" if self.per_channel else "per tensor")
        parts += ["narrow"] if self.narrow else []
        return f"{self.bits} bits, {', '.join(parts)}"


@dataclasses.dataclass(frozen=True)
class Backend:
    """One row of the table.

    Attributes:
        name: as MQBench calls it, in lower case.
        weights, activations: their rules.
        scale: what a scale may be; ``log``: values themselves are logarithmic.
        weight_observer, activation_observer: MQBench's defaults, in our words.
        note: where the sources differ.
    """

    name: str
    weights: TensorRule
    activations: TensorRule
    scale: Scale = "float"
    weight_observer: str = "minmax"
    activation_observer: str = "moving"
    note: str = ""

    def differences(self, other: Backend) -> list[str]:
        """What changes for a model that goes from this backend to another, one line each."""
        pairs = [
            ("weights", self.weights, other.weights),
            ("activations", self.activations, other.activations),
            ("scales", self.scale, other.scale),
        ]
        return [f"{what}: {a} → {b}" for what, a, b in pairs if str(a) != str(b)]


_SYMMETRIC = TensorRule()
_NARROW = TensorRule(narrow=True)
_AFFINE = TensorRule(symmetric=False)
_CHANNEL = TensorRule(per_channel=True)

BACKENDS: tuple[Backend, ...] = (
    Backend(
        "tensorrt",
        TensorRule(per_channel=True, narrow=True),
        _NARROW,
        note="MQBench's documents say -128..127 for activations, its code -127..127",
    ),
    Backend("openvino", _CHANNEL, _SYMMETRIC),
    Backend("snpe", _AFFINE, _AFFINE),
    Backend("ppl-w8a16", _AFFINE, TensorRule(bits=16, symmetric=False)),
    Backend(
        "ppl-cuda",
        TensorRule(symmetric=False, per_channel=True),
        _AFFINE,
        activation_observer="minmax",
    ),
    Backend("onnx-qnn", _AFFINE, _AFFINE, activation_observer="minmax", note="MQBench's TVM path"),
    Backend("tengine-u8", _AFFINE, _AFFINE),
    Backend(
        "vitis",
        _SYMMETRIC,
        _SYMMETRIC,
        scale="power-of-two",
        activation_observer="minmax",
        note="scales are rounded up here; Vitis rounds halves of negative values differently",
    ),
    Backend("stpu", _NARROW, _NARROW),
    Backend(
        "nnie",
        _SYMMETRIC,
        _SYMMETRIC,
        scale="log",
        activation_observer="minmax",
        note="logarithmic values, 16 steps an octave",
    ),
    Backend("fewbits-mcu", TensorRule(per_channel=True, narrow=True), _AFFINE),
)


def get_backend(name: str) -> Backend:
    """A backend by name.

    Raises:
        FewbitsError: ``unknown-backend``.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise FewbitsError(
        "unknown-backend",
        f"no backend {name!r}",
        hint=nearest(name, [backend.name for backend in BACKENDS]),
    )


def recipe_passes(
    backend: Backend, observer: str | None = None, before: tuple[str, ...] = ()
) -> list[str | dict[str, dict[str, Any] | None]]:
    """The passes of a recipe that quantizes under the backend's rules.

    Args:
        backend: whose rules.
        observer: of activations; the backend's own by default.
        before: algorithms that run before quantization, such as ``equalize``.
    """
    observer = observer or backend.activation_observer
    first: list[str | dict[str, dict[str, Any] | None]] = ["canonicalize", *before]
    if backend.scale == "log":
        log = {"format": "log8x16", "strategy": "tensor"}
        return [
            *first,
            {"quantize_weights": {**log, "scale_storage": "float32"}},
            {"quantize_activations": {**log, "dynamic": False}},
        ]
    options = {
        "activation_observer": observer,
        "weight_observer": backend.weight_observer,
        "strategy": "channel" if backend.weights.per_channel else "tensor",
        "symmetric": backend.activations.symmetric,
        "narrow": backend.activations.narrow,
        "weight_symmetric": backend.weights.symmetric,
        "activation_bits": backend.activations.bits,
        "scale": backend.scale,
    }
    return [*first, {"quantize": options}]
