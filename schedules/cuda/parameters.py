"""A product's kernel through TVM's builder: its parameters, its grid, and its epilogue's loads."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_cta_sync
from tvm.tirx.script import builder as T

from .epilogue import Epilogue, Operand
from .problem import Linear


@dataclasses.dataclass(frozen=True)
class Parameters:
    """A kernel's parameters, in `Linear`'s order.

    Attributes:
        problem: the product.
        rows: M, an int64 variable.
        x: [M, K].
        weight: the stored weight's arrays.
        operands: the epilogue's.
        y: [M, N].
    """

    problem: Linear
    rows: Any
    x: Any
    weight: tuple[Any, ...]
    operands: tuple[Any, ...]
    y: Any

    @staticmethod
    def declare(problem: Linear) -> Parameters:
        """The parameters as those of the function being built."""
        epilogue = problem.epilogue
        rows = tirx.Var("m", "int64")

        def declared(name: str, shape: tuple[Any, ...], dtype: str) -> Any:
            return T.arg(name, T.buffer(shape, dtype))

        x = declared("x", (rows, problem.inputs), problem.activation)
        arrays = problem.weight.arrays(problem.outputs, problem.inputs)
        weight = tuple(declared(a.name, a.shape, a.dtype) for a in arrays)
        operands = tuple(
            declared(f"{o.extends}{place}", operand_shape(o, rows, problem.outputs), o.dtype)
            for place, o in enumerate(epilogue.operands)
        )
        y = declared("y", (rows, problem.outputs), epilogue.dtype)
        return Parameters(problem, rows, x, weight, operands, y)

    def value(self, total: Any, row: Any, column: Any) -> Any:
        """What the epilogue makes of the sum of one element, given its int64 place."""
        epilogue = self.problem.epilogue
        return finished(epilogue, self.operands, total, row, column)


def operand_shape(operand: Operand, rows: Any, outputs: int) -> tuple[Any, ...]:
    """An operand's shape."""
    shapes: dict[str, tuple[Any, ...]] = {
        "row": (rows,),
        "column": (outputs,),
        "matrix": (rows, outputs),
        "one": (1,),
    }
    return shapes[operand.extends]


def finished(
    epilogue: Epilogue, operands: tuple[Any, ...], total: Any, row: Any, column: Any
) -> Any:
    """The epilogue's value where the sum is `total`, with its operands' elements loaded."""
    elements: list[Any] = []
    for operand, buffer in zip(epilogue.operands, operands, strict=True):
        if operand.extends == "row":
            elements.append(buffer[row])
        elif operand.extends == "column":
            elements.append(buffer[column])
        elif operand.extends == "matrix":
            elements.append(buffer[row, column])
        else:
            elements.append(buffer[0])
    return epilogue.at(total, elements)


def launch(blocks: Any, threads: int) -> tuple[Any, Any]:
    """Begin the part that runs on the GPU: the block's number and the thread's, both int32.

    Args:
        blocks: how many, an int64 expression below 2^31.
        threads: of a block.
    """
    T.device_entry()
    block: Any = T.cta_id([tirx.Cast("int32", blocks)])
    thread: Any = T.thread_id([threads])
    return block, thread


def barrier() -> None:
    """Wait until all threads of the block are here; what they stored is seen from then on."""
    T.evaluate(cuda_cta_sync())


def long(value: Any) -> Any:
    """An int64 index: matrices may have more than 2^31 elements."""
    return tirx.Cast("int64", value)


def held(value: Any) -> Any:
    """The value in a variable: TVM writes an expression that is only bound anew at every use."""
    dtype = str(value.ty.dtype)
    cell = T.alloc_buffer((1,), dtype, scope="local")
    T.buffer_store(cell, value, [0])
    return cell[0]
