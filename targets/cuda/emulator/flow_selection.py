"""Which operations branches, calls and ends become."""

# ruff: noqa: D102  (do_NAME selects the instruction NAME)
from __future__ import annotations

from typing import TYPE_CHECKING

from . import ptx
from .code import Operation
from .operands import Operands, Unknown

if TYPE_CHECKING:
    from .program import KernelMaker


class FlowSelection(Operands):
    """Selection of the instructions that change what is executed next."""

    maker: KernelMaker
    #: Branches: the operation, which of its operands, and the PTX instruction that it means.
    jumps: list[tuple[Operation, int, int]]

    def do_bra(self) -> None:
        (target,) = self.operands
        if not isinstance(target, ptx.Symbol):
            raise Unknown
        operation = self.emit("bra", [0])
        (place,) = ptx.labels_of(self.instruction, [target.name])
        self.jumps.append((operation, 0, place))

    def do_brx(self) -> None:
        index, table = self.operands
        names = self.instruction.scope.table(table.name) if isinstance(table, ptx.Symbol) else None
        if names is None:
            raise Unknown("a branch without its table")
        operation = self.emit("brx", [self.read(index, "u32"), *([0] * len(names))])
        for position, place in enumerate(ptx.labels_of(self.instruction, names)):
            self.jumps.append((operation, position + 1, place))

    def do_call(self) -> None:
        operands = list(self.operands)
        results: list[ptx.Variable] = []
        if isinstance(operands[0], ptx.Group):
            results = _variables(operands.pop(0))
        callee = operands.pop(0)
        if not isinstance(callee, ptx.Symbol):
            raise Unknown("a call through a register")
        arguments = _variables(operands.pop(0)) if operands else []
        self.maker.call(callee.name, arguments, results)

    def do_ret(self) -> None:
        maker = self.maker
        if maker.function is maker.entry:
            self.emit("exit", [])
        else:
            self.emit("ret", [maker.returns[maker.function.name]])

    def do_exit(self) -> None:
        self.emit("exit", [])

    def do_trap(self) -> None:
        self.emit("trap", [])

    def do_brkpt(self) -> None:
        self.emit("nop", [])

    def do_nanosleep(self) -> None:
        self.emit("pause", [])


def _variables(operand: ptx.Operand) -> list[ptx.Variable]:
    if not isinstance(operand, ptx.Group):
        raise Unknown("arguments without parentheses")
    found = [s.variable for s in operand.items if isinstance(s, ptx.Symbol) and s.variable]
    if len(found) != len(operand.items):
        raise Unknown("arguments that are no variables")
    return found
