"""What a schedule computes, without a GPU: its trace again, without what says where.

Threads, memory scopes, vectors and instructions change nothing about the results; loops, copies,
layouts of fragments and padding do. So the trace is replayed without the former, and what is left
runs on any CPU. What an instruction computes is its description's word: the emulated GPU checks it.
"""

from __future__ import annotations

from typing import Any

from tvm import IRModule, s_tir

#: Instructions that say who does something, or how, and not what.
_WHERE = frozenset({"Tensorize", "Bind", "Vectorize", "Unroll", "Annotate"})

#: The place of the memory scope among an instruction's attributes.
_SCOPE = {"CacheRead": 1, "CacheWrite": 1, "SetScope": 1}


def meaning(function: Any, sch: s_tir.Schedule) -> Any:
    """What a schedule made of a function, for the host.

    Args:
        function: what the schedule began with, a PrimFunc.
        sch: the schedule, with its trace.
    """
    trace = sch.trace
    if trace is None:
        raise ValueError("the schedule keeps no trace")
    kept = [_anywhere(i) for i in trace.insts if i.kind.name not in _WHERE]
    again = s_tir.Schedule(IRModule({"main": function}), debug_mask=0)
    serial = s_tir.schedule.Trace(kept, dict(trace.decisions.items()))
    serial.apply_to_schedule(again, remove_postproc=False)
    return again.mod["main"]


def _anywhere(instruction: Any) -> Any:
    """The instruction with ordinary memory in the place of a scope."""
    place = _SCOPE.get(instruction.kind.name)
    if place is None:
        return instruction
    attributes = list(instruction.attrs)
    attributes[place] = "global"
    return s_tir.schedule.Instruction(
        instruction.kind, list(instruction.inputs), attributes, list(instruction.outputs)
    )
