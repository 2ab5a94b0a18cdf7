"""Operands of PTX instructions as references of the binary form."""

# ruff: noqa: D102  (do_NAME selects the instruction NAME)
from __future__ import annotations

import struct
from typing import Protocol

from . import ptx
from .code import (
    FTZ,
    NAN,
    NARROW_FIRST,
    NARROW_SECOND,
    RELU,
    ROUNDING,
    SAT,
    SPACES,
    TYPES,
    WIDE,
    WIDE_DATA,
    WIDE_SOURCE,
    XORSIGN,
    Operation,
)

_SPECIAL = {
    name: number
    for number, name in enumerate(
        [f"{group}.{axis}" for group in
         ("tid", "ntid", "ctaid", "nctaid", "clusterid", "nclusterid", "cluster_ctaid",
          "cluster_nctaid") for axis in "xyz"]
        + ["cluster_ctarank", "cluster_nctarank", "laneid", "warpid", "nwarpid", "smid", "nsmid",
           "gridid", "lanemask_eq", "lanemask_le", "lanemask_lt", "lanemask_ge", "lanemask_gt",
           "clock", "dynamic_smem_size", "total_smem_size", "is_explicit_cluster"]
    )
}  # fmt: skip
_SPECIAL |= {
    name: _SPECIAL["clock"] for name in ("clock64", "globaltimer", "clock_hi", "globaltimer_lo")
}

#: The sink of results that nobody wants: two slots, and the predicate.
SINK, SINK_PREDICATE, FALSE, TRUE = 0, 2, 0, 1


class Unknown(Exception):
    """An instruction, or a form of one, that the emulator does not know."""


class Maker(Protocol):
    """What a selector asks of the kernel's maker."""

    def slot(self, register: ptx.Register) -> int: ...
    def predicate(self, register: ptx.Register) -> int: ...
    def temporary(self, wide: bool) -> ptx.Register: ...
    def constant(self, value: int, wide: bool, variable: int = ...) -> int: ...
    def address(self, symbol: ptx.Symbol, line: int, wide: bool = True) -> int: ...
    def place(self, variable: ptx.Variable) -> int: ...
    def emit(self, operation: Operation) -> None: ...
    @property
    def entry_params(self) -> set[ptx.Variable]: ...


def float_constant(immediate: ptx.Immediate, kind: str) -> int:
    """The bits of a number in a type."""
    if immediate.bits == 0:
        if kind in ("f32", "f64"):
            packed = struct.pack("<d", float(immediate.value))
            return float_constant(ptx.Immediate(struct.unpack("<Q", packed)[0], 64), kind)
        return immediate.value
    if kind == "f32" and immediate.bits == 64:
        (value,) = struct.unpack("<d", struct.pack("<Q", immediate.value))
        return struct.unpack("<I", struct.pack("<f", value))[0]
    if kind == "f64" and immediate.bits == 32:
        (value,) = struct.unpack("<f", struct.pack("<I", immediate.value))
        return struct.unpack("<Q", struct.pack("<d", value))[0]
    return immediate.value


class Operands:
    """Access to one instruction's operands; what is emitted belongs to it."""

    def __init__(self, maker: Maker, instruction: ptx.Instruction) -> None:
        self.maker = maker
        self.instruction = instruction
        self.operands = instruction.operands
        self.modifiers = instruction.modifiers

    def emit(self, name: str, operands: list[int], kind: str = "none", second: str = "none",
             flags: int = 0) -> Operation:  # fmt: skip
        """Appends an operation."""
        operation = Operation(name, operands, TYPES[kind], TYPES[second], flags)
        self.maker.emit(operation)
        return operation

    def has(self, *names: str) -> bool:
        """Whether the opcode has one of some modifiers."""
        return any(name in self.modifiers for name in names)

    def types(self) -> list[str]:
        """The types among the modifiers, in order."""
        return [name for name in self.modifiers if name in TYPES]

    def kind(self) -> str:
        """The last type."""
        found = self.types()
        if not found:
            raise Unknown("no type")
        return found[-1]

    def flags(self) -> int:
        """Rounding, ftz, sat and the like."""
        flags = 0
        for name in self.modifiers:
            flags |= ROUNDING.get(name, 0)
            flags |= {"ftz": FTZ, "sat": SAT, "NaN": NAN, "relu": RELU, "xorsign": XORSIGN}.get(
                name, 0
            )
        return flags

    def special(self, operand: ptx.Special, wide: bool) -> int:
        """A register with the value of a special register."""
        name = operand.name
        if name not in _SPECIAL:
            raise Unknown(f"the special register %{name}")
        slot = self.maker.slot(self.maker.temporary(wide))
        self.emit("sreg", [slot, _SPECIAL[name]], "u64" if wide else "u32")
        return slot

    def read(self, operand: ptx.Operand, kind: str) -> int:
        """A reference to a value of a type."""
        wide = TYPES[kind] in WIDE
        if isinstance(operand, ptx.Register):
            if operand.kind == "pred":
                raise Unknown("a predicate where a number belongs")
            if (operand.kind == "64") != wide:
                if wide:
                    raise Unknown(f"{operand.name} is too narrow for .{kind}")
                narrow = self.maker.slot(self.maker.temporary(False))
                self.emit("cvt", [narrow, self.maker.slot(operand)], "u32", "u64", WIDE_SOURCE)
                return narrow
            return self.maker.slot(operand)
        if isinstance(operand, ptx.Immediate):
            value = float_constant(operand, kind)
            if kind in ("b16", "u16", "s16", "f16", "bf16"):
                value &= 0xFFFF
            return self.maker.constant(value, wide)
        if isinstance(operand, ptx.Special):
            return self.special(operand, wide)
        if isinstance(operand, ptx.Symbol):
            return self.maker.address(operand, self.instruction.line, wide)
        if isinstance(operand, ptx.Negated):
            negative = self.maker.slot(self.maker.temporary(wide))
            self.emit("neg", [negative, self.read(operand.operand, kind)], kind)
            return negative
        raise Unknown("this operand")

    def write(self, operand: ptx.Operand, kind: str) -> int:
        """The slot of a result of a type."""
        if isinstance(operand, ptx.Symbol) and operand.name == "_":
            return SINK
        if not isinstance(operand, ptx.Register) or operand.kind == "pred":
            raise Unknown("a result that is no register")
        if (operand.kind == "64") != (TYPES[kind] in WIDE):
            raise Unknown(f"{operand.name} as a result of type .{kind}")
        return self.maker.slot(operand)

    def data(self, operand: ptx.Operand, kind: str, result: bool) -> tuple[int, bool]:
        """A register of any width that holds a value of a type: its slot, whether it is wide."""
        if isinstance(operand, ptx.Register) and operand.kind != "pred":
            return self.maker.slot(operand), operand.kind == "64"
        if result:
            return self.write(operand, kind), False
        wide = TYPES[kind] in WIDE
        return self.read(operand, kind), wide

    def predicate(self, operand: ptx.Operand) -> int:
        """A predicate to read."""
        if isinstance(operand, ptx.Negated):
            return self.predicate(operand.operand) ^ 1
        if isinstance(operand, ptx.Immediate):
            return TRUE if operand.value else FALSE
        if not isinstance(operand, ptx.Register) or operand.kind != "pred":
            raise Unknown("a number where a predicate belongs")
        return 2 * self.maker.predicate(operand)

    def predicate_result(self, operand: ptx.Operand) -> int:
        """A predicate to write."""
        if isinstance(operand, ptx.Symbol) and operand.name == "_":
            return SINK_PREDICATE
        return self.predicate(operand)

    def pair(self, operand: ptx.Operand) -> tuple[ptx.Operand, ptx.Operand | None]:
        """``d|p``, or ``d`` alone."""
        if isinstance(operand, ptx.Pair):
            return operand.first, operand.second
        return operand, None

    def memory(self, operand: ptx.Operand, second: bool = False) -> tuple[list[int], int]:
        """An address: its two words and the flag of its width."""
        if not isinstance(operand, ptx.Memory):
            raise Unknown("an operand that is no address")
        base, offset = operand.base, operand.offset
        if isinstance(base, (ptx.Symbol, ptx.Immediate)):
            return [self.read(base, "u64"), offset & 0xFFFFFFFF], 0
        if not isinstance(base, ptx.Register):
            raise Unknown("this address")
        narrow = base.kind == "32"
        flag = (NARROW_SECOND if second else NARROW_FIRST) if narrow else 0
        return [self.maker.slot(base), offset & 0xFFFFFFFF], flag

    def address(self, operand: ptx.Operand) -> list[int]:
        """An address as a 64-bit register and an offset, whatever its width."""
        words, flag = self.memory(operand)
        if flag:
            wide = self.maker.slot(self.maker.temporary(True))
            self.emit("cvt", [wide, words[0]], "u64", "u32", WIDE_DATA)
            words[0] = wide
        return words

    def space(self) -> int:
        """The state space among the modifiers; generic when there is none."""
        for name in self.modifiers:
            if name.startswith("shared"):
                return SPACES["cluster" if name == "shared::cluster" else "shared"]
            head = name.partition("::")[0]
            if head in SPACES and head != "cluster":
                return SPACES[head]
        return SPACES["generic"]

    def items(self, operand: ptx.Operand) -> tuple[ptx.Operand, ...]:
        """The elements of a vector, or the one operand."""
        return operand.items if isinstance(operand, ptx.Vector) else (operand,)
