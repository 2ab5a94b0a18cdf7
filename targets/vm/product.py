"""A model as a shared library for TVM's virtual machine: what all kinds of devices share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from ...ops.evaluate import largest_sizes
from ...ops.symbolic import spell
from ..base import Golden, Product, Run, Shape, Value
from .integers import Model
from .layers import weight_bits

#: The product's file.
LIBRARY = "model.so"


class LibraryProduct(Product):
    """A module on its way to a library; families add kernels, loops and machine code.

    Args:
        model: what the library computes.
    """

    def __init__(self, model: Model) -> None:
        self.module = model.module
        self.quantization = model.quantization
        function: Any = self.module["main"]
        self.inputs = tuple(
            Value(shape_of(p.ty), str(p.ty.dtype), meaning)
            for p, meaning in zip(function.params, model.interface.inputs, strict=True)
        )
        result: Any = function.ret_ty
        fields = result.fields if isinstance(result, relax.TupleType) else [result]
        self.outputs = tuple(
            Value(shape_of(field), str(field.dtype), meaning)
            for field, meaning in zip(fields, model.interface.outputs, strict=True)
        )

    def layers(self) -> list[dict[str, Any]]:
        """A row per layer with weights (`layers.layer_rows`)."""
        raise NotImplementedError

    def check_budgets(self) -> None:
        """A library has no budgets."""

    def references(self, reference: ir.IRModule) -> dict[str, ir.IRModule]:
        """What the library computes; the float model is there as ONNX."""
        del reference
        return {"module": self.module}

    def plan(self) -> dict[str, Any]:
        """Weights and layers."""
        codes, metadata = weight_bits(self.module)
        return {"weight_bytes": (codes + metadata + 7) // 8, "layers": len(self.layers())}

    def describe(self) -> dict[str, Any]:
        """Exact sizes of the weights, the largest sizes of inputs, a row per layer."""
        codes, metadata = weight_bits(self.module)
        return {
            "library": LIBRARY,
            "versions": {"tvm": tvm.__version__},
            "largest_sizes": largest_sizes(self.module),
            "library_bytes": None,
            "weight_bits": {"codes": codes, "metadata": metadata},
            "float_match": self.float_match,
            "score": None,
            "layers": self.layers(),
        }

    def verified(self, run: Run, samples: int, difference: float) -> dict[str, Any]:
        """How far the library was from the oracle."""
        del run
        return {
            "golden": {
                "samples": samples,
                "exact": difference == 0,
                "difference": difference,
                "allowed": self.float_match,
            }
        }


def save_golden(folder: Path, golden: Golden | None) -> None:
    """Golden samples as ``golden/input_0.npy`` ... and ``output_0.npy`` ...; nothing for None."""
    if golden is None:
        return
    (folder / "golden").mkdir()
    for role, arrays in zip(("input", "output"), golden, strict=True):
        for index, array in enumerate(arrays):
            np.save(folder / "golden" / f"{role}_{index}.npy", array)


def shape_of(ty: Any) -> Shape:
    """Sizes, symbolic ones by name, computed ones as text."""
    return tuple(
        int(size) if isinstance(size, ir.prim.IntImm) else spell(size) for size in ty.shape.values
    )
