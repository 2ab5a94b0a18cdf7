"""What a convolution computes, and how its operands lie in memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..epilogue import Epilogue
from ..problem import Linear
from ..weight_format import Dense

#: Bytes of the element types that there are kernels for.
BYTES = {"int8": 1, "float16": 2, "bfloat16": 2}


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """``y[n, p, q, o] = epilogue(Σ x[n, p·sh + r·dh − top, q·sw + s·dw − left, c] w[o, r, s, c])``.

    Channels are last everywhere. Results are a matrix [M, O] where M = batch · height · width of
    the output, and so are the epilogue's operands; a kernel's parameters are x [N, H, W, I], the
    weight as the kernel wants it, the epilogue's operands and y [M, O]. The batch is known at run
    time only. Outside of the image x is `pad`. Sums are int32 for int8, else float32.

    Attributes:
        inputs: I, the channels of x.
        outputs: O.
        kernel: height and width of the window.
        strides: down and across.
        padding: top, left, bottom, right.
        dilation: down and across.
        groups: into how many parts the channels fall, each convolved on its own.
        size: height and width of x; None where they are known at run time only.
        activation: dtype of x and the weight: ``int8``, ``float16`` or ``bfloat16``.
        pad: what surrounds the image: the zero point of int8 activations, else 0.
        epilogue: what happens to a sum; its dtype is y's.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    size: tuple[int | None, int | None]
    activation: str
    pad: int
    epilogue: Epilogue

    @property
    def accumulator(self) -> str:
        """dtype of the sums."""
        return "int32" if self.activation == "int8" else "float32"

    @property
    def bytes(self) -> int:
        """Of an element of x."""
        return BYTES[self.activation]

    @property
    def taps(self) -> int:
        """Places of the window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def terms(self) -> int:
        """Products in a sum."""
        return self.taps * self.inputs // self.groups

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is convolved on its own, with one result."""
        return self.groups == self.inputs == self.outputs and self.groups > 1

    @property
    def is_matrix_product(self) -> bool:
        """Whether each result comes from the one pixel at its place."""
        unit = self.kernel == self.strides == (1, 1)
        return unit and not any(self.padding) and self.groups == 1

    def output_size(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Height and width of the results, of numbers or expressions."""
        top, left, bottom, right = self.padding
        found = []
        for place, (size, around) in enumerate(((height, top + bottom), (width, left + right))):
            span = self.dilation[place] * (self.kernel[place] - 1) + 1
            found.append((size + around - span) // self.strides[place] + 1)
        return found[0], found[1]

    @property
    def key(self) -> str:
        """Text that equal problems share."""
        return (
            f"convolution {self.activation} {self.inputs}->{self.outputs}/{self.groups} "
            f"window {self.kernel} strides {self.strides} padding {self.padding} of {self.pad} "
            f"dilation {self.dilation} size {self.size} -> {self.epilogue.key}"
        )

    def linear(self) -> Linear:
        """The product of a matrix of patches with the weight [O, K], K filled up to 16 bytes."""
        step = 16 // self.bytes
        length = -(-self.terms // step) * step
        return Linear(length, self.outputs, self.activation, Dense(self.activation), self.epilogue)


def patches_weight(problem: Convolution, weight: np.ndarray) -> np.ndarray:
    """The weight [O, kh, kw, I] as `Convolution.linear` has it: [O, K], zeros at the end."""
    length = problem.linear().inputs
    packed = np.zeros((problem.outputs, length), weight.dtype)
    packed[:, : problem.terms] = weight.reshape(problem.outputs, -1)
    return packed


def filling(problem: Convolution) -> np.ndarray:
    """Sixteen bytes of what surrounds the image, as int8."""
    return np.full(16, problem.pad if problem.activation == "int8" else 0, np.int8)
