"""ONNX's node cases through the CUDA target, on the emulated GPU.

`node_cases` runs them all. Cases are lowered one by one, and compiled and linked several at a time:
starting nvcc takes longer than most of them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.canonicalize import Canonicalize
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.targets.cuda.checks import check_weights
from fewbits.targets.cuda.pipeline import choose_kernels, lower_to_tir

from .cuda_libraries import Part, functions_of
from .node_cases_cpu import imported


@dataclasses.dataclass(frozen=True, eq=False)
class Lowered:
    """A case whose loops and kernels await a compiler.

    Attributes:
        part: its loops and kernels.
        given: the first input.
        oracle: its outputs by the oracle.
    """

    part: Part
    given: np.ndarray
    oracle: list[np.ndarray]


def lowered(
    model: onnx.ModelProto,
    given: Mapping[str, np.ndarray],
    architecture: str,
    dtype: str,
    *,
    symbolic: bool,
) -> Lowered:
    """A case as loops and kernels; all inputs but the first are constants.

    Args:
        model: a case's.
        given: all inputs by name, in order.
        architecture: what kernels are for.
        dtype: what floats are stored in.
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
    check_weights(module, dtype)
    chosen = choose_kernels(module, ARCHITECTURES[architecture], dtype)
    part = Part(lower_to_tir(chosen), chosen.kernels)
    oracle = Evaluator(found.module)({first: torch.from_numpy(np.array(array))})
    return Lowered(part, array, [value.numpy() for value in oracle.values()])


def outputs_of(
    cases: Sequence[Lowered], architecture: str
) -> list[list[np.ndarray] | FewbitsError]:
    """The outputs of several cases from one library; an error for a case that stops.

    Raises:
        FewbitsError: ``compiler-failed`` where one of them does not compile.
    """
    outputs: list[list[np.ndarray] | FewbitsError] = []
    with functions_of([case.part for case in cases], architecture) as functions:
        for function, case in zip(functions, cases, strict=True):
            try:
                outputs.append(function([case.given]))
            except FewbitsError as error:
                outputs.append(error)
    return outputs
