"""The generic route: any Relax call as a self-contained C function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ....errors import FewbitsError
from ..program import Argument, Buffer, Constant, KernelCall, Scratch
from ..target import McuTarget
from .lowering import lower_function
from .primfunc import Legalized, legalize
from .printer import print_function
from .schedule import schedule

#: Kernel headers that generated functions need.
INCLUDES = ("tir.h",)


def lower_with_tir(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    outputs: Sequence[Buffer],
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
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

    Returns:
        A call whose `source` defines its `function`; equal operators give equal functions.

    Raises:
        FewbitsError: ``no-kernel`` if there is no TIR for the operator or no C for its TIR.
    """
    legalized = legalize(layer, call, constants)
    run_time = {source for source in legalized.sources if isinstance(source, int)}
    if len(outputs) != legalized.outputs or max(run_time, default=-1) >= len(inputs):
        raise FewbitsError(
            "internal",
            f"{call.op.name} has {legalized.outputs} results and {len(run_time)} inputs, "
            f"not {len(outputs)} and {len(inputs)}",
            where=layer,
        )
    scheduled = schedule(legalized.function)
    lowered = lower_function(scheduled)
    function = print_function(lowered, legalized.outputs, in_place=False, layer=layer)
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
        overlap=tuple(None for _ in inputs),
        source=function.source,
        includes=INCLUDES,
        note=_note(call, inputs, outputs),
    )


def _argument(source: int | np.ndarray, inputs: Sequence[Buffer]) -> Argument:
    if isinstance(source, int):
        return inputs[source]
    return Constant("constant", np.ascontiguousarray(source))


def _note(call: relax.Call, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> str:
    if any(buffer.dtype.startswith("float") for buffer in (*inputs, *outputs)):
        return "float arithmetic, generated code"
    return "generated code, not a tuned kernel"


__all__ = ["Legalized", "lower_with_tir"]
