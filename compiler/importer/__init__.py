"""ONNX to Relax.

    imported = import_onnx("model.onnx", bind={"T": 128})
    imported.module      # one Relax function "main", see docs/architecture.md

The road: read and check (`load`, `checks`), bind the inputs' shapes (`interface`), then convert
node by node, evaluating what is known (`convert`, `fold`, `fold_sizes`, `operators/`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from .interface import TensorInfo

if TYPE_CHECKING:
    from tvm import ir

__all__ = ["ImportedModel", "TensorInfo", "import_onnx"]


@dataclasses.dataclass(frozen=True)
class ImportedModel:
    """A model as the compiler works on it.

    Attributes:
        module: one Relax function ``main`` (docs/architecture.md).
        inputs: the run-time inputs in order.
        outputs: the outputs in order.
        name: the graph's name, or the file's.
        opset: version of the default operator set.
        onnx_model: the model with bound input shapes, frozen constants and external data loaded;
            onnxruntime runs it as the float oracle.
        notes: decisions the user should know of, e.g. a batch dimension set to 1.
    """

    module: ir.IRModule
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    name: str
    opset: int
    onnx_model: onnx.ModelProto
    notes: list[str]


def import_onnx(
    source: str | Path | onnx.ModelProto | bytes,
    *,
    bind: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    dynamic: bool = False,
) -> ImportedModel:
    """Import an ONNX model.

    Args:
        source: a file, its bytes, or a model (which is not changed).
        bind: sizes of symbolic dimensions by name. A symbolic or unnamed first dimension that is
            not bound is the batch and becomes 1, with a note; any other must be bound.
        shapes: whole shapes by input name; they win over `bind`.
        constants: inputs to freeze, by name.
        dynamic: leave symbolic dimensions that are not bound open: in the module each is one
            ``tirx.Var`` of its name. Where the model implies that one cannot be larger than some
            size (a table of positions ends), the function's attribute ``tir_var_upper_bound``
            has it by name.

    Raises:
        FewbitsError: whatever is wrong with the model, see `checks`; a symbolic dimension that is
            not bound (``unbound-dimension``), or is where an operator cannot leave it open
            (``symbolic-dimension``); operators or forms of them that are not supported.
    """
    from . import checks, interface, tensors
    from .convert import CLAIMED_OPERATORS, convert
    from .expand import inline_functions
    from .load import load

    model, name, mapped = load(source)
    checks.check_versions(model)
    interface.freeze(model, constants or {})
    checks.prepare(model)
    flat = inline_functions(model)
    opsets = checks.check_versions(flat)
    checks.prepare(flat)
    checks.check_operators(flat.graph.node, opsets, CLAIMED_OPERATORS)
    notes: list[str] = []
    inputs = interface.bind_shapes(model, bind or {}, shapes or {}, notes, dynamic)
    known = {
        tensor.name: mapped[tensor.name] if tensor.name in mapped else tensors.read(tensor)
        for tensor in flat.graph.initializer
    }
    module, more = convert(flat.graph, opsets, inputs, known)
    return ImportedModel(
        module,
        tuple(inputs),
        interface.outputs_of(module),
        model.graph.name or name,
        opsets[""],
        model,
        notes + more,
    )
