"""A product of integers of few bits, both sides in bit planes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import tirx

from ..epilogue import Epilogue
from ..host import Parameter
from ..parameters import operand_shape
from ..problem import Linear
from ..weight_format import Dense
from .encoding import Encoding, words

#: Sums are int32.
_LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Window:
    """A convolution's geometry: each row of the left side is a patch of an image.

    Attributes:
        size: height and width of x.
        kernel: of the window.
        strides: down and across.
        padding: top, left, bottom, right: of zeros.
        dilation: down and across.
    """

    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def taps(self) -> int:
        """Places of the window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the results."""
        top, left, bottom, right = self.padding
        found = []
        for place, around in enumerate((top + bottom, left + right)):
            span = self.dilation[place] * (self.kernel[place] - 1) + 1
            found.append((self.size[place] + around - span) // self.strides[place] + 1)
        return found[0], found[1]


@dataclasses.dataclass(frozen=True, eq=False)
class BinaryProduct:
    """``y[m, n] = epilogue(Σ_k x[m, k] · w[n, k])`` of integers, exact in int32.

    Planes are uint32. x is [M, q, words(K)]; with a window [images, H, W, q, words(channels)],
    where M = images · height · width of the results. w is [N, p, words(K)]; with a window
    [N, p, taps · words(channels)]. y is [M, N], or packed for the next product [M, r, words(N)].

    Attributes:
        inputs: K, or the channels of a window.
        outputs: N.
        x: what the activations' bits mean.
        w: what the weights' bits mean.
        epilogue: from an int32 sum to what is stored; to an integer of `output`, as int32, where
            the result is packed.
        output: what the result's bits mean, or None where it is not packed.
        window: of a convolution.
    """

    inputs: int
    outputs: int
    x: Encoding
    w: Encoding
    epilogue: Epilogue
    output: Encoding | None = None
    window: Window | None = None

    def refusal(self) -> str | None:
        """Why there is no kernel, or None where there is one."""
        window = self.window
        if window is not None and any(window.padding) and self.x.offset:
            return f"{self.x.key} has no zero, and the image is padded"
        largest = max(-self.x.minimum, self.x.maximum) * max(-self.w.minimum, self.w.maximum)
        # Counts are scaled before they are added, so the terms have to fit as well as the sum.
        if 4 * largest * self.terms > _LARGEST:
            return f"a sum of {self.terms} products of {self.x.key} and {self.w.key} exceeds int32"
        if self.output is not None and self.epilogue.dtype != "int32":
            return f"{self.epilogue.dtype} cannot be packed"
        return None

    @property
    def taps(self) -> int:
        """Places of the window; 1 without."""
        return 1 if self.window is None else self.window.taps

    @property
    def terms(self) -> int:
        """Products in a sum."""
        return self.taps * self.inputs

    @property
    def length(self) -> int:
        """Words of a plane of one row of the left side."""
        return self.taps * words(self.inputs)

    @property
    def needs_sums(self) -> bool:
        """Whether kernels read the sums of the weights' bits, the parameter after w."""
        return self.x.offset != 0

    @property
    def key(self) -> str:
        """Text that equal problems share."""
        result = "" if self.output is None else f" packed {self.output.key}"
        window = "" if self.window is None else f" {self.window}"
        return (
            f"binary {self.x.key} {self.w.key} K={self.inputs} N={self.outputs}{window} "
            f"-> {self.epilogue.key}{result}"
        )

    def linear(self) -> Linear:
        """The same product of bytes."""
        return Linear(self.terms, self.outputs, "int8", Dense("int8"), self.epilogue)

    def parameters(self, rows: Any) -> list[Parameter]:
        """x, w, the weight's sums where they are needed, the epilogue's operands, y.

        Args:
            rows: M; with a window the number of images.
        """
        x: tuple[Any, ...] = (rows,)
        if self.window is not None:
            x = (rows, *self.window.size)
            rows = rows * tirx.const(self.window.output[0] * self.window.output[1], "int64")
        arrays: list[Parameter] = [
            ("x", (*x, self.x.bits, words(self.inputs)), "uint32"),
            ("w", (self.outputs, self.w.bits, self.length), "uint32"),
        ]
        if self.needs_sums:
            arrays.append(("sums", (self.outputs,), "int32"))
        arrays += [
            (f"operand{place}", operand_shape(operand, rows, self.outputs), operand.dtype)
            for place, operand in enumerate(self.epilogue.operands)
        ]
        if self.output is None:
            arrays.append(("y", (rows, self.outputs), self.epilogue.dtype))
        else:
            arrays.append(("y", (rows, self.output.bits, words(self.outputs)), "uint32"))
        return arrays

    def pack_weight(self, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """w, and its sums where they are needed.

        Args:
            weight: integers [N, K]; with a window [N, kh, kw, channels].
        """
        by_tap = weight.reshape(self.outputs, self.taps, self.inputs)
        planes = self.w.pack(by_tap).transpose(0, 2, 1, 3)
        packed = np.ascontiguousarray(planes).reshape(self.outputs, self.w.bits, self.length)
        if not self.needs_sums:
            return (packed,)
        sums = weight.reshape(self.outputs, -1).astype(np.int64).sum(1)
        return packed, (sums - self.terms * self.w.offset).astype(np.int32)
