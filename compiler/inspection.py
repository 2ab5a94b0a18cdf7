"""What a model is made of, and what of it would run in integers, before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..targets.catalogue import get_target
from .progress import Progress, quiet


@dataclasses.dataclass(frozen=True)
class Layer:
    """One operator of the canonical model; `reason` says why it would stay float, or None."""

    name: str
    operator: str
    shape: tuple[int, ...]
    macs: int
    weights: int
    reason: str | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The result of `inspect_model`; `inputs` and `outputs` have name, shape and dtype."""

    name: str
    opset: int
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(layer.weights for layer in self.layers)

    @property
    def integer_share(self) -> float:
        """Share of the MACs that would run in integers; 1 in a model without any."""
        if not self.macs:
            return 1.0
        return sum(layer.macs for layer in self.layers if layer.reason is None) / self.macs

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        totals = {"macs": self.macs, "weights": self.weights, "integer_share": self.integer_share}
        return {**dataclasses.asdict(self), **totals}


def inspect_model(
    model: Any, target: str, bind: Mapping[str, int], progress: Progress = quiet
) -> Inspection:
    """Import and canonicalize a model and describe it.

    Raises:
        FewbitsError: whatever is wrong with the model; ``unknown-target``.
    """
    from tvm import ir, relax

    from ..passes.base import PassContext, make_pass
    from ..passes.macs import macs
    from ..passes.quantize.plan import make_plan
    from ..passes.rewrite import Rewriter, operator_of
    from .importer import import_onnx

    get_target(target)
    progress.phase("import")
    imported = import_onnx(model, bind=bind)
    progress.phase("canonicalize")
    module = make_pass("canonicalize", {}).apply(imported.module, PassContext())
    plan = make_plan(module, ())
    counts = macs(module)
    layers = []
    for var, value in Rewriter(module).bindings:
        operator = operator_of(value)
        if operator is None or not isinstance(value, relax.Call):
            continue
        if not isinstance(var.ty, relax.TensorType):
            continue
        constants = [a for a in value.args if isinstance(a, ir.GenericConst)]
        short = operator.removeprefix("relax.").removeprefix("nn.")
        layers.append(
            Layer(
                var.name,
                short,
                tuple(int(d) for d in var.ty.shape.values),
                counts.get(var.name, 0),
                sum(int(np.prod(c.value.shape)) for c in constants),
                plan.floats.get(var.name),
            )
        )
    return Inspection(
        imported.name,
        imported.opset,
        imported.inputs,
        imported.outputs,
        tuple(layers),
        tuple(imported.notes),
    )
