"""The generic route: any Relax call as a self-contained C function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax, tirx

from ....errors import FewbitsError
from ..program import Argument, Buffer, Constant, KernelCall, Scratch
from ..target import McuTarget
from .lowering import lower_function
from .overlap import divides, overlap_distances
from .primfunc import Legalized, legalize
from .printer import print_function
from .schedule import fuse_loops, multiply_accumulates, schedule

#: The kernel header that generated functions need.
HEADER = "tir.h"


def lower_with_tir(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    outputs: Sequence[Buffer],
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
    weights: Mapping[relax.Var, relax.Call] | None = None,
) -> KernelCall:
    """Generate C for one operator from its TIR.

    Args:
        layer: the model's name for the layer.
        call: the operator; static shapes.
        inputs: buffers of the run-time tensor arguments, in order, tuples flattened.
        outputs: buffers of the results, in order.
        constants: values of the arguments (by position) that are known. Arguments that are
            constants themselves need no entry.
        target: the core the code is for; all cores get the same code and the same bits.
        weights: few-bit weights among the arguments: they are decoded within the function.

    Returns:
        A call whose `source` defines its `function`; equal operators give equal functions.

    Raises:
        FewbitsError: ``no-kernel`` if there is no TIR for the operator or no C for its TIR.
    """
    legalized = legalize(layer, call, constants, weights)
    run_time = {source for source in legalized.sources if isinstance(source, int)}
    if len(outputs) != legalized.outputs or max(run_time, default=-1) >= len(inputs):
        raise FewbitsError(
            "internal",
            f"{call.op.name} has {legalized.outputs} results and {len(run_time)} inputs, "
            f"not {len(outputs)} and {len(inputs)}",
            where=layer,
        )
    lowered, distances = _lowered(legalized.function)
    function = print_function(lowered, legalized.outputs, in_place=bool(distances), layer=layer)
    arguments: list[Argument] = [_argument(source, inputs) for source in legalized.sources]
    arguments += outputs
    if function.scratch:
        arguments.append(Scratch())
    return KernelCall(
        layer=layer,
        operator=call.op.name.removeprefix("relax.").removeprefix("nn."),
        function=function.name,
        header=None,
        arguments=tuple(arguments),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        scratch=function.scratch,
        macs=multiply_accumulates(legalized.function),
        overlap=_overlap(legalized, distances, inputs),
        source=f'#include "{HEADER}"\n{function.source}',
        note=_note(call, inputs, outputs),
    )


def _lowered(function: tirx.PrimFunc) -> tuple[tirx.PrimFunc, dict[int, int]]:
    """The scheduled, lowered function, and how its output may overlap its parameters."""
    scheduled = schedule(function)
    flat = fuse_loops(scheduled)
    if flat is not None:
        lowered = lower_function(flat)
        if not divides(lowered):
            return lowered, overlap_distances(lowered)
    lowered = lower_function(scheduled)
    return lowered, overlap_distances(lowered)


def _overlap(
    legalized: Legalized, distances: Mapping[int, int], inputs: Sequence[Buffer]
) -> tuple[int | None, ...]:
    """`KernelCall.overlap` from distances by parameter. An input that is several arguments, or
    none, must keep to itself (unused arguments may be anything, but are not worth a rule)."""
    result: list[int | None] = []
    for position, buffer in enumerate(inputs):
        uses = [i for i, source in enumerate(legalized.sources) if source is position]
        same = sum(other.name == buffer.name for other in inputs)
        alone = len(uses) == 1 and same == 1
        result.append(distances.get(uses[0]) if alone else None)
    return tuple(result)


def _argument(source: int | np.ndarray, inputs: Sequence[Buffer]) -> Argument:
    if isinstance(source, int):
        return inputs[source]
    return Constant("constant", np.ascontiguousarray(source))


def _note(call: relax.Call, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> str:
    if any(buffer.dtype.startswith("float") for buffer in (*inputs, *outputs)):
        return "float arithmetic, generated code"
    return "generated code, not a tuned kernel"
