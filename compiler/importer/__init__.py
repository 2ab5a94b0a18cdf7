"""ONNX to Relax.

    imported = import_onnx("model.onnx", bind={"T": 128})
    imported.module      # one Relax function "main", see docs/architecture.md

The road: read and check (`load`, `checks`), make every shape static (`interface`), then convert
node by node, evaluating what is known (`convert`, `fold`, `operators/`).
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
        inputs: the run-time inputs in order, with static shapes.
        outputs: the outputs in order.
        name: the graph's name, or the file's.
        opset: version of the default operator set.
        onnx_model: the model with static input shapes, frozen constants and external data loaded;
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
) -> ImportedModel:
    """Import an ONNX model with static shapes.

    Args:
        source: a file, its bytes, or a model (which is not changed).
        bind: sizes of symbolic dimensions by name. A symbolic or unnamed first dimension that is
            not bound is the batch and becomes 1, with a note.
        shapes: whole shapes by input name; they win over `bind`.
        constants: inputs to freeze, by name.

    Raises:
        FewbitsError: whatever is wrong with the model, see `checks`; a symbolic dimension that is
            not bound (``unbound-dimension``); operators or forms of them that are not supported.
    """
    from . import checks, interface, tensors
    from .convert import CLAIMED_OPERATORS, CONVERTERS, convert
    from .expand import expand
    from .load import load

    model, name = load(source)
    opsets = checks.check_versions(model)
    notes: list[str] = []
    interface.freeze(model, constants or {})
    checks.prepare(model)
    functions = {f"{function.domain}:{function.name}" for function in model.functions}
    checks.check_operators(model.graph.node, opsets, CLAIMED_OPERATORS | functions)
    inputs = interface.make_static(model, bind or {}, shapes or {}, notes)
    expanded = expand(model, CONVERTERS)
    if expanded is not model:
        opsets = checks.check_versions(expanded)
        checks.prepare(expanded)
        checks.check_operators(expanded.graph.node, opsets, CONVERTERS)
    known = {tensor.name: tensors.read(tensor) for tensor in expanded.graph.initializer}
    module, more = convert(expanded.graph, opsets, inputs, known)
    return ImportedModel(
        module,
        tuple(inputs),
        interface.outputs_of(module),
        model.graph.name or name,
        opsets[""],
        model,
        notes + more,
    )
