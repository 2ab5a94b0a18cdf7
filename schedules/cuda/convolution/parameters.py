"""A convolution's parameters, as kernels and their callers declare them."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..host import Parameter
from ..parameters import finished, long, operand_shape
from .problem import Convolution

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


@dataclasses.dataclass(frozen=True)
class Extents:
    """Sizes of a convolution's arrays: int64 variables, numbers where they are known.

    Attributes:
        batch, height, width: of x.
        rows: of y, all images' pixels.
    """

    batch: Any
    height: Any
    width: Any
    rows: Any

    @staticmethod
    def of(problem: Convolution) -> Extents:
        """New variables for what is known at run time only."""
        height, width = (
            tirx.Var(name, "int64") if size is None else size
            for name, size in zip(("height", "width"), problem.size, strict=True)
        )
        return Extents(tirx.Var("batch", "int64"), height, width, tirx.Var("m", "int64"))


def parameters(
    problem: Convolution, extents: Extents, weight: tuple[tuple[int, ...], str]
) -> list[Parameter]:
    """x, weight, filling, the epilogue's operands, y.

    Args:
        problem: the convolution.
        extents: sizes.
        weight: shape and dtype of the weight as the kernel has it.
    """
    shape = (extents.batch, extents.height, extents.width, problem.inputs)
    operands: list[Parameter] = [
        (f"{o.extends}{place}", operand_shape(o, extents.rows, problem.outputs), o.dtype)
        for place, o in enumerate(problem.epilogue.operands)
    ]
    return [
        ("x", shape, problem.activation),
        ("weight", *weight),
        ("filling", (16,), "int8"),
        *operands,
        ("y", (extents.rows, problem.outputs), problem.epilogue.dtype),
    ]


@dataclasses.dataclass(frozen=True)
class Declared:
    """The parameters of the function being built.

    Attributes:
        problem: the convolution.
        extents: its sizes.
        x, weight, filling, y: arrays.
        operands: the epilogue's.
    """

    problem: Convolution
    extents: Extents
    x: Any
    weight: Any
    filling: Any
    operands: tuple[Any, ...]
    y: Any

    @staticmethod
    def declare(problem: Convolution, weight: tuple[tuple[int, ...], str]) -> Declared:
        """The parameters, in order."""
        extents = Extents.of(problem)
        x, stored, filling, *operands, y = (
            T.arg(name, T.buffer(shape, dtype))
            for name, shape, dtype in parameters(problem, extents, weight)
        )
        return Declared(problem, extents, x, stored, filling, tuple(operands), y)

    def value(self, total: Any, row: Any, column: Any) -> Any:
        """What the epilogue makes of a sum, given its int64 place."""
        return finished(self.problem.epilogue, self.operands, total, row, column)

    def output_size(self) -> tuple[Any, Any]:
        """Height and width of the results, int32."""
        found = self.problem.output_size(self.extents.height, self.extents.width)
        return tuple(  # type: ignore[return-value]
            tirx.const(size, "int32") if isinstance(size, int) else tirx.Cast("int32", size)
            for size in found
        )

    def input_size(self) -> tuple[Any, Any]:
        """Height and width of the image, int32."""
        return tuple(  # type: ignore[return-value]
            tirx.const(size, "int32") if isinstance(size, int) else tirx.Cast("int32", size)
            for size in (self.extents.height, self.extents.width)
        )

    def pixel(self, image: Any, down: Any, across: Any) -> Any:
        """Where a pixel's channels begin in x, int64; it may lie outside of the image.

        Args:
            image: int64.
            down, across: int32.
        """
        row = image * self.extents.height + long(down)
        return (row * self.extents.width + long(across)) * self.problem.inputs
