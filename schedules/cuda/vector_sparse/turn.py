"""Codes with rows last: what gathers of a vector-sparse product read."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from .spmm import TOKENS


def filled(rows: Any) -> Any:
    """From a row of the turned matrix to the next, of an int64 number of rows or an integer."""
    if isinstance(rows, int):
        return -(-rows // TOKENS) * TOKENS
    return tirx.floordiv(rows + (TOKENS - 1), TOKENS) * TOKENS


def turn_rows(inputs: int) -> Any:
    """The PrimFunc: codes int8 [M, K] -> uint8 [1, K, M filled up to a multiple of 64], zeros last.

    A plain loop without threads: `general` schedules it.
    """
    rows = tirx.Var("m", "int64")
    codes = te.placeholder((rows, inputs), "int8", "codes")

    def at(_: Any, k: Any, m: Any) -> Any:
        code = codes[tirx.min(m, rows - 1), k]
        return tirx.if_then_else(m < rows, tirx.Cast("uint8", code), tirx.const(0, "uint8"))

    turned = te.compute((1, inputs, filled(rows)), at, name="turned")
    return te.create_prim_func([codes, turned]).with_attr("global_symbol", "turn_rows")
