"""What a PTX text consists of: registers, variables, instructions, functions, scopes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeAlias

from ....errors import FewbitsError


@dataclasses.dataclass(eq=False)
class Register:
    """A virtual register. `kind` is ``"pred"`` or its width in bits: 16, 32, 64."""

    name: str
    kind: str


@dataclasses.dataclass(eq=False)
class Variable:
    """A variable in a state space; `init` are bytes, `relocations` (offset, name, addend)."""

    name: str
    space: str
    align: int
    size: int
    init: bytes = b""
    relocations: tuple[tuple[int, str, int], ...] = ()
    extern: bool = False
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class Immediate:
    """A number; floats are given by their bits, of `bits` bits (0: an integer)."""

    value: int
    bits: int = 0


@dataclasses.dataclass(frozen=True)
class Special:
    """A special register such as ``%tid.x``."""

    name: str


@dataclasses.dataclass(frozen=True)
class Symbol:
    """The address of a variable or function, or a name that nothing declares."""

    name: str
    variable: Variable | None
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class Memory:
    """``[base + offset]``, with the further operands of the brackets (coordinates)."""

    base: Operand
    offset: int
    more: tuple[Operand, ...] = ()


@dataclasses.dataclass(frozen=True)
class Vector:
    """``{a, b, ...}``"""

    items: tuple[Operand, ...]


@dataclasses.dataclass(frozen=True)
class Pair:
    """``d|p``: a result and its predicate."""

    first: Operand
    second: Operand


@dataclasses.dataclass(frozen=True)
class Negated:
    """``!p`` or ``-r``"""

    operand: Operand


@dataclasses.dataclass(frozen=True)
class Group:
    """``(a, b)``: arguments of a call."""

    items: tuple[Operand, ...]


Operand: TypeAlias = (
    Register | Immediate | Special | Symbol | Memory | Vector | Pair | Negated | Group
)


class Scope:
    """Names between two braces."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.names: dict[str, Register | Variable] = {}
        self.ranges: dict[str, tuple[int, str]] = {}
        self.labels: dict[str, int] = {}
        self.tables: dict[str, list[str]] = {}

    def find(self, name: str) -> Register | Variable | None:
        """What a name stands for, seen from here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            if scope.ranges:
                stem = name.rstrip("0123456789")
                number = name[len(stem) :]
                if number and stem in scope.ranges:
                    count, kind = scope.ranges[stem]
                    if int(number) < count:
                        register = Register(name, kind)
                        scope.names[name] = register
                        return register
            scope = scope.parent
        return None

    def label(self, name: str) -> int | None:
        """The instruction that a label stands before."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.labels:
                return scope.labels[name]
            scope = scope.parent
        return None

    def table(self, name: str) -> list[str] | None:
        """The labels of a ``.branchtargets`` list."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.tables:
                return scope.tables[name]
            scope = scope.parent
        return None


@dataclasses.dataclass
class Instruction:
    """One instruction: ``@guard opcode.modifiers operands``."""

    line: int
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    negated: bool
    scope: Scope

    @property
    def text(self) -> str:
        """The opcode as it was written."""
        return ".".join((self.opcode, *self.modifiers))


@dataclasses.dataclass
class Function:
    """A kernel (`entry`) or a device function."""

    name: str
    entry: bool
    line: int
    results: list[Variable]
    params: list[Variable]
    body: list[Instruction]
    variables: list[Variable]
    directives: dict[str, tuple[int, ...]]
    defined: bool


@dataclasses.dataclass
class Module:
    """A PTX file."""

    version: int
    target: str
    variables: dict[str, Variable]
    functions: dict[str, Function]

    @property
    def capability(self) -> int:
        """90 for sm_90a."""
        digits = re.search(r"\d+", self.target)
        return int(digits.group()) if digits else 0


def labels_of(instruction: Instruction, names: Sequence[str]) -> list[int]:
    """The instructions that labels stand before.

    Raises:
        FewbitsError: ``ptx-syntax``.
    """
    found: list[int] = []
    for name in names:
        place = instruction.scope.label(name)
        if place is None:
            raise FewbitsError(
                "ptx-syntax", f"there is no label {name}", where=f"PTX line {instruction.line}"
            )
        found.append(place)
    return found
