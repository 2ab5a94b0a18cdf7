"""One of ONNX's node cases through the CPU target: machine code in this process.

`node_cases` runs them all. Nothing is linked: the executable runs from memory.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
import tvm
from fewbits.compiler.importer import ImportedModel, import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.canonicalize import Canonicalize
from fewbits.targets.cpu.pipeline import choose_kernels, lower_to_tir, make_executable
from fewbits.targets.cpu.target import TARGETS, tvm_target
from tvm import ir
from tvm.runtime.vm import VirtualMachine


def run_here(module: ir.IRModule, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A module compiled for this CPU and run once."""
    target = tvm_target(TARGETS["cpu"])
    executable = make_executable(lower_to_tir(choose_kernels(module, target), target), target)
    machine = VirtualMachine(executable.jit(), tvm.cpu())
    arrays = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in inputs]
    result = machine["main"](*arrays)
    return [f.numpy() for f in ([result] if hasattr(result, "numpy") else list(result))]


def outputs_of(
    model: onnx.ModelProto, given: dict[str, np.ndarray], *, symbolic: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outputs of oracle and CPU; all inputs but the first are constants.

    Args:
        model: a case's.
        given: all inputs by name, in order.
        symbolic: leave every size of the first input open.

    Raises:
        FewbitsError: what the importer or the target refuses.
    """
    if not given:
        raise FewbitsError("constant-output", "the outputs do not depend on any input")
    (first, array), *rest = given.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = imported(model, first, array.shape, dict(rest), symbolic=symbolic)
    module = Canonicalize().apply(found.module, PassContext(seed=0))
    outputs = run_here(module, [array])  # first of all, as it may be refused
    oracle = Evaluator(found.module)({first: torch.from_numpy(np.array(array))})
    return [value.numpy() for value in oracle.values()], outputs


def imported(
    model: onnx.ModelProto,
    name: str,
    shape: tuple[int, ...],
    constants: dict[str, Any],
    *,
    symbolic: bool,
) -> ImportedModel:
    """A case with its first input alone, and with names for its sizes where they are symbolic."""
    if not symbolic:
        return import_onnx(model, shapes={name: shape}, constants=constants)
    if not all(shape) or not shape:
        raise FewbitsError("no-size", "the first input has no sizes, or one of 0")
    model = copy.deepcopy(model)
    for value in model.graph.input:
        if value.name == name:
            for axis, size in enumerate(value.type.tensor_type.shape.dim):
                size.Clear()
                size.dim_param = f"d{axis}"
    return import_onnx(model, constants=constants, dynamic=True)
