"""The tensor-core product of 16 by 16 results as schedules see it: plain TIR, and instructions.

MetaSchedule replaces a block by instructions where it computes the same as the description. A
fragment is a buffer in ``warp`` scope: [32 lanes, elements of a lane]. Its maps below are those of
two adjoining ``m16n8`` products (PTX manual, "Matrix fragments for mma.m16n8k16" and "...k32").
"""

from __future__ import annotations

import functools
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from .mma import BYTES, KINDS, Kind

#: Results of one intrinsic, both ways.
SIDE = 16


def sum_place(i: Any, j: Any) -> tuple[Any, Any]:
    """The lane, and the element in it, of a result."""
    return 4 * (i % 8) + j % 8 // 2, 4 * (j // 8) + 2 * (i // 8) + j % 2


def left_place(kind: Kind, i: Any, k: Any) -> tuple[Any, Any]:
    """The lane, and the element in it, of row i, term k of the left operand."""
    word, half = 4 // kind.bytes, BYTES // kind.bytes // 2
    return 4 * (i % 8) + k % half // word, word * (2 * (k // half) + i // 8) + k % word


def right_place(kind: Kind, j: Any, k: Any) -> tuple[Any, Any]:
    """The lane, and the element in it, of column j, term k of the right operand."""
    word, half = 4 // kind.bytes, BYTES // kind.bytes // 2
    return 4 * (j % 8) + k % half // word, word * (2 * (j // 8) + k // half) + k % word


def terms(kind: Kind) -> int:
    """Terms along K of one intrinsic."""
    return BYTES // kind.bytes


class Intrinsics:
    """The names under which one kind's intrinsics are registered."""

    def __init__(self, kind: Kind) -> None:
        """Register them."""
        self.fill = f"fewbits.mma.{kind.dtype}.fill"
        self.left = f"fewbits.mma.{kind.dtype}.left"
        self.right = f"fewbits.mma.{kind.dtype}.right"
        self.multiply = f"fewbits.mma.{kind.dtype}.multiply"
        TensorIntrin.register(self.fill, *_fill(kind), override=True)
        TensorIntrin.register(self.left, *_load(kind, left=True), override=True)
        TensorIntrin.register(self.right, *_load(kind, left=False), override=True)
        TensorIntrin.register(self.multiply, *_multiply(kind), override=True)


@functools.cache
def intrinsics(dtype: str) -> Intrinsics:
    """The intrinsics of operands of a dtype, registered when first asked for."""
    return Intrinsics(KINDS[dtype])


def _fill(kind: Kind) -> tuple[Any, Any]:
    dtype = kind.accumulator

    @T.prim_func(s_tir=True)
    def description(a: T.handle) -> None:
        sums = T.match_buffer(a, (32, 8), dtype, offset_factor=1, scope="warp")
        with T.sblock("root"):
            T.reads()
            T.writes(sums[0:32, 0:8])
            for i, j in T.grid(16, 16):
                with T.sblock("fill"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    lane, at = T.meta_var(sum_place(vi, vj))
                    T.reads()
                    T.writes(sums[lane, at])
                    sums[lane, at] = T.cast(0, dtype)

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle) -> None:
        sums = T.match_buffer(a, (32, 8), dtype, offset_factor=1, scope="warp")
        with T.sblock("root"):
            T.reads()
            T.writes(sums[0:32, 0:8])
            for lane in T.thread_binding(0, 32, "threadIdx.x"):
                for j in T.unroll(8):
                    sums[lane, j] = T.cast(0, dtype)

    return description, implementation


def _load(kind: Kind, left: bool) -> tuple[Any, Any]:
    deep, held = terms(kind), 16 // kind.bytes
    dtype, half = kind.dtype, deep // 2
    place = left_place if left else right_place

    @T.prim_func(s_tir=True)
    def description(f: T.handle, s: T.handle) -> None:
        fragment = T.match_buffer(f, (32, held), dtype, offset_factor=1, scope="warp")
        tile = T.match_buffer(s, (16, deep), dtype, offset_factor=1, scope="shared.dyn")
        with T.sblock("root"):
            T.reads(tile[0:16, 0:deep])
            T.writes(fragment[0:32, 0:held])
            for i, k in T.grid(16, deep):
                with T.sblock("load"):
                    vi, vk = T.axis.remap("SS", [i, k])
                    T.reads(tile[vi, vk])
                    lane, at = T.meta_var(place(kind, vi, vk))
                    T.writes(fragment[lane, at])
                    fragment[lane, at] = tile[vi, vk]

    @T.prim_func(s_tir=True)
    def implementation(f: T.handle, s: T.handle) -> None:
        s0 = T.int32()
        s1 = T.int32()
        fragment = T.match_buffer(f, (32, held), dtype, offset_factor=1, scope="warp")
        tile = T.match_buffer(
            s, (16, deep), dtype, offset_factor=1, scope="shared.dyn", strides=[s0, s1]
        )
        with T.sblock("root"):
            T.reads(tile[0:16, 0:deep])
            T.writes(fragment[0:32, 0:held])
            for lane in T.thread_binding(0, 32, "threadIdx.x"):
                row = T.meta_var(lane % 16 if left else lane // 16 * 8 + lane % 8)
                term = T.meta_var((lane // 16 if left else lane % 16 // 8) * half)
                T.evaluate(
                    T.ptx_legacy.ldmatrix(
                        False,
                        4,
                        ".b16",
                        fragment.data,
                        fragment.elem_offset + held * lane,
                        tile.access_ptr("r"),
                        row * s0 + term,
                        dtype=dtype,
                    )
                )

    return description, implementation


def _multiply(kind: Kind) -> tuple[Any, Any]:
    deep, held = terms(kind), 16 // kind.bytes
    dtype, accumulator = kind.dtype, kind.accumulator
    names = {"float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2"}
    name = names.get(dtype, dtype)
    result = "int32" if accumulator == "int32" else "fp32"

    @T.prim_func(s_tir=True)
    def description(c: T.handle, a: T.handle, b: T.handle) -> None:
        sums = T.match_buffer(c, (32, 8), accumulator, offset_factor=1, scope="warp")
        left = T.match_buffer(a, (32, held), dtype, offset_factor=1, scope="warp")
        right = T.match_buffer(b, (32, held), dtype, offset_factor=1, scope="warp")
        with T.sblock("root"):
            T.reads(sums[0:32, 0:8], left[0:32, 0:held], right[0:32, 0:held])
            T.writes(sums[0:32, 0:8])
            for i, j, k in T.grid(16, 16, deep):
                with T.sblock("multiply"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    lane_c, at_c = T.meta_var(sum_place(vi, vj))
                    lane_a, at_a = T.meta_var(left_place(kind, vi, vk))
                    lane_b, at_b = T.meta_var(right_place(kind, vj, vk))
                    T.reads(sums[lane_c, at_c], left[lane_a, at_a], right[lane_b, at_b])
                    T.writes(sums[lane_c, at_c])
                    sums[lane_c, at_c] = sums[lane_c, at_c] + T.cast(
                        left[lane_a, at_a], accumulator
                    ) * T.cast(right[lane_b, at_b], accumulator)

    @T.prim_func(s_tir=True)
    def implementation(c: T.handle, a: T.handle, b: T.handle) -> None:
        sums = T.match_buffer(c, (32, 8), accumulator, offset_factor=1, scope="warp")
        left = T.match_buffer(a, (32, held), dtype, offset_factor=1, scope="warp")
        right = T.match_buffer(b, (32, held), dtype, offset_factor=1, scope="warp")
        with T.sblock("root"):
            T.reads(sums[0:32, 0:8], left[0:32, 0:held], right[0:32, 0:held])
            T.writes(sums[0:32, 0:8])
            for lane in T.thread_binding(0, 32, "threadIdx.x"):
                for half in T.unroll(2):
                    T.evaluate(
                        T.ptx_legacy.mma(
                            kind.shape,
                            "row",
                            "col",
                            name,
                            name,
                            result,
                            left.data,
                            left.elem_offset + lane * held,
                            right.data,
                            right.elem_offset + lane * held + half * (held // 2),
                            sums.data,
                            sums.elem_offset + lane * 8 + half * 4,
                            False,
                            dtype=accumulator,
                        )
                    )

    return description, implementation
