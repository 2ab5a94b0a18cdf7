"""Vector instructions that few-bit kernels are made of, by what they compute.

Sums of int8 products have an instruction on most processors, each with its own idea of operands:
VNNI multiplies unsigned by signed bytes, Arm's ``sdot`` signed by signed ones, plain SSE/AVX has
pairs of 16-bit products. A `DotProduct` hides the difference: it says how quantized activations are
packed into 32-bit words and how weights lie beside them, and all of them give the exact int32 sum.
(``vpmaddubsw``, four bytes at a time before VNNI, is none of them: it saturates its 16-bit sums.)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import target as tvm_target
from tvm import tirx
from tvm.target import codegen

_features: Any = codegen.target_has_features


def has_feature(target: tvm_target.Target, feature: str) -> bool:
    """Whether the processor of an ``llvm`` target has an LLVM feature, e.g. ``avx512vnni``."""
    return bool(_features(feature, target))


def is_arm64(target: tvm_target.Target) -> bool:
    """Whether the target is a 64-bit Arm."""
    return str(target.attrs.get("mtriple", "")).startswith(("aarch64", "arm64"))


def vector(dtype: str, lanes: int) -> str:
    """The type of a vector: ``vector("int32", 16)`` is ``int32x16``; of one lane, the scalar's."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def broadcast(value: Any, lanes: int) -> Any:
    """A scalar in all lanes."""
    return tirx.Broadcast(value, lanes)


def pure_call(dtype: str, intrinsic: str, *arguments: Any) -> Any:
    """A call of an LLVM intrinsic without side effects."""
    return tirx.call_llvm_pure_intrin(dtype, intrinsic, *arguments)


def multiply_add(x: Any, y: Any, z: Any, lanes: int) -> Any:
    """``x * y + z`` of float32 vectors in one instruction."""
    return pure_call(vector("float32", lanes), "llvm.fma", x, y, z)


@dataclasses.dataclass(frozen=True)
class DotProduct:
    """``acc[i] + sum_j x[j] * w[i, j]`` for int8 x and w, exactly, in `lanes` int32 lanes.

    Attributes:
        intrinsic: LLVM's name; None: widen, multiply and add one value at a time.
        lanes: int32 sums in a vector.
        values: activations in a 32-bit word, which is what all lanes multiply at a time.
        offset: what is added to an activation before packing, 128 where bytes are unsigned; the
            caller subtracts `offset` times the weights' sums from the result.
    """

    intrinsic: str | None
    lanes: int
    values: int
    offset: int = 0

    @classmethod
    def of(cls, target: tvm_target.Target) -> DotProduct:
        """The best instruction of a target."""
        if is_arm64(target):
            dotprod = has_feature(target, "dotprod")
            return cls("llvm.aarch64.neon.sdot", 4, 4) if dotprod else cls(None, 4, 1)
        if has_feature(target, "avx512bw"):
            if has_feature(target, "avx512vnni"):
                return cls("llvm.x86.avx512.vpdpbusd.512", 16, 4, 128)
            return cls("llvm.x86.avx512.pmaddw.d.512", 16, 2)
        if has_feature(target, "avxvnni"):
            return cls("llvm.x86.avx512.vpdpbusd.256", 8, 4, 128)
        if has_feature(target, "avx2"):
            return cls("llvm.x86.avx2.pmadd.wd", 8, 2)
        return cls(None, 4, 1)

    @property
    def name(self) -> str:
        """What reports call it: ``vpdpbusd``, ``pmaddwd``, ``sdot`` or ``widening``."""
        if self.intrinsic is None:
            return "widening"
        return {4: "sdot", 2: "pmaddwd"}[self.values] if not self.offset else "vpdpbusd"

    @property
    def weight_dtype(self) -> str:
        """The type in which the `values` weights of one lane are stored as one number."""
        return {4: "int32", 2: "int16", 1: "int8"}[self.values]

    @property
    def activation_bits(self) -> int:
        """Bits that an activation takes in its word."""
        return 32 // self.values

    def word_count(self, length: int) -> int:
        """Words of a row of activations; rows are whole vectors of `lanes` activations."""
        return -(-length // self.lanes) * self.lanes // self.values

    def pack_weights(self, weight: npt.NDArray[np.int8]) -> np.ndarray:
        """``[O, K]`` as ``[panels of `lanes` outputs, steps of `values`, lanes]``, zero-padded."""
        outputs, length = weight.shape
        panels, steps = -(-outputs // self.lanes), -(-length // self.values)
        padded = np.zeros((panels * self.lanes, steps * self.values), np.int8)
        padded[:outputs, :length] = weight
        split = padded.reshape(panels, self.lanes, steps, self.values).transpose(0, 2, 1, 3)
        packed = np.ascontiguousarray(split).view(self.weight_dtype)
        return packed.reshape(panels, steps, self.lanes)

    def pack_activations(self, values: Any) -> Any:
        """int32 vector of `lanes` activations, offset added, as a vector of words."""
        kind = {4: "uint8" if self.offset else "int8", 2: "int16", 1: "int32"}[self.values]
        narrow = tirx.Cast(vector(kind, self.lanes), values) if self.values > 1 else values
        return tirx.reinterpret(vector("int32", self.lanes // self.values), narrow)

    def accumulate(self, accumulator: Any, word: Any, weights: Any) -> Any:
        """The new accumulator: int32 `lanes`, a scalar word, a vector as `pack_weights` made it."""
        x = broadcast(word, self.lanes)
        sums = vector("int32", self.lanes)
        if self.intrinsic is None:
            return accumulator + x * tirx.Cast(sums, weights)
        if self.values == 2:
            pairs = 2 * self.lanes
            wide = vector("int16", pairs)
            signed = tirx.Cast(wide, tirx.reinterpret(vector("int8", pairs), weights))
            products = pure_call(sums, self.intrinsic, tirx.reinterpret(wide, x), signed)
            return accumulator + products
        taken = vector("uint8" if self.offset else "int8", 4 * self.lanes)
        stored = vector("int8", 4 * self.lanes)
        return pure_call(
            sums, self.intrinsic, accumulator,
            tirx.reinterpret(taken, x), tirx.reinterpret(stored, weights),
        )  # fmt: skip
