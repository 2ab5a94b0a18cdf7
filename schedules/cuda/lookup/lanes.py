"""Sums over the lanes of a warp, 32 of them at once: lane l gets the l-th."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.registers import held

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def add_lanes(values: Sequence[Any], lane: Any) -> Any:
    """The sum over all lanes of value number `lane`, in an order that is always the same.

    Pairs of lanes exchange what the other one keeps, so every round halves the values: 31 exchanges
    for 32 sums.

    Args:
        values: 32 float32 expressions.
        lane: the thread's.
    """
    kept = list(values)
    distance = len(kept) // 2
    while distance:
        upper = held(tirx.Cast("int32", lane // distance % 2))
        following = []
        for low, high in zip(kept[:distance], kept[distance:], strict=True):
            mine = held(tirx.Select(upper == 1, high, low))
            given = held(tirx.Select(upper == 1, low, high))
            full = tirx.const(0xFFFFFFFF, "uint32")
            other = tirx.call_pure_extern("float32", "__shfl_xor_sync", full, given, distance)
            following.append(held(mine + other))
        kept = following
        distance //= 2
    return kept[0]
