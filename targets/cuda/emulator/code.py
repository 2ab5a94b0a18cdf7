"""The binary form of a program, as `core/image.c` reads it; numbers come from the C headers."""

from __future__ import annotations

import dataclasses
import functools
import re
import struct
from pathlib import Path

_CORE = Path(__file__).parent / "core"
_MAGIC, _VERSION = 0x31504246, 1
NO_PC = 0xFFFFFFFF
CONSTANT = 0x80000000

TYPES = {
    name: number
    for number, name in enumerate(
        [
            "none",
            "u8",
            "s8",
            "u16",
            "s16",
            "u32",
            "s32",
            "u64",
            "s64",
            "f16",
            "bf16",
            "f16x2",
            "bf16x2",
            "f32",
            "f64",
            "pred",
            "tf32",
            "e4m3",
            "e5m2",
        ]
    )
}
TYPES |= {f"b{bits}": TYPES[f"u{bits}"] for bits in (8, 16, 32, 64)}
WIDE = frozenset(TYPES[name] for name in ("u64", "s64", "f64"))
SPACES = {
    name: number
    for number, name in enumerate(
        ["generic", "global", "shared", "local", "const", "param", "cluster"]
    )
}

#: Flags of every instruction, and of arithmetic (`core/machine.h`).
NARROW_SECOND, NARROW_FIRST, WIDE_DATA, WIDE_SOURCE = 1 << 28, 1 << 29, 1 << 30, 1 << 31
ROUNDING = {"rn": 0, "rz": 1, "rm": 2, "rp": 3, "rni": 0, "rzi": 1, "rmi": 2, "rpi": 3}
FTZ, SAT, NAN, RELU, INTEGER, CARRY_IN, CARRY_OUT, HIGH, XORSIGN = (1 << n for n in range(2, 11))
SPECIAL = 16


@functools.lru_cache
def operations() -> dict[str, tuple[int, str]]:
    """Number and operands of each operation (`core/opcodes.h`)."""
    text = (_CORE / "opcodes.h").read_text(encoding="utf-8")
    found = re.findall(r'X\((\w+), "([^"]*)"\)', text)
    return {name: (number, operands) for number, (name, operands) in enumerate(found)}


@dataclasses.dataclass
class Operation:
    """One operation of a program.

    `operands` follow `core/opcodes.h`. Of a repeated operand, `results` are written and the rest is
    only read; -1: all are as the list says.
    """

    name: str
    operands: list[int]
    t: int = 0
    s: int = 0
    flags: int = 0
    guard: int = NO_PC
    line: int = 0
    results: int = -1

    def encode(self) -> bytes:
        """Its words."""
        number = operations()[self.name][0]
        head = number | self.t << 12 | self.s << 17 | len(self.operands) << 22
        words = [head, self.guard, self.flags, self.line, *self.operands]
        return struct.pack(f"<{len(words)}I", *(word & 0xFFFFFFFF for word in words))


@dataclasses.dataclass
class Kernel:
    """A kernel of the binary form; sizes in bytes."""

    name: str
    slots: int
    predicates: int
    entry: int
    shared: int
    local: int
    max_threads: int
    block: tuple[int, int, int]
    cluster: tuple[int, int, int]
    registers: int
    params: list[tuple[int, int]]
    param_bytes: int
    constants: list[tuple[int, int, bool]]
    code: list[Operation]


@dataclasses.dataclass
class Image:
    """A program of the binary form."""

    ptx_version: int
    target: int
    strings: list[str] = dataclasses.field(default_factory=list)
    variables: list[tuple[str, int, bytes, list[tuple[int, int, int]]]] = dataclasses.field(
        default_factory=list
    )
    kernels: list[Kernel] = dataclasses.field(default_factory=list)

    def string(self, text: str) -> int:
        """The index of a text."""
        if text not in self.strings:
            self.strings.append(text)
        return self.strings.index(text)

    def encode(self) -> bytes:
        """The whole program."""
        kernels = b"".join(self._kernel(kernel) for kernel in self.kernels)
        variables = b"".join(self._variable(*variable) for variable in self.variables)
        strings = b"".join(
            _words(len(data := text.encode("utf-8"))) + _padded(data) for text in self.strings
        )
        return b"".join(
            (
                _words(_MAGIC, _VERSION, self.ptx_version, self.target, len(self.strings)),
                strings,
                _words(len(self.variables)),
                variables,
                _words(len(self.kernels)),
                kernels,
            )
        )

    def _variable(
        self, name: str, size: int, init: bytes, relocations: list[tuple[int, int, int]]
    ) -> bytes:
        flat = [word for relocation in relocations for word in relocation]
        data = init.rstrip(b"\0")
        return (
            _words(self.string(name), size, len(data))
            + _padded(data)
            + _words(len(relocations), *flat)
        )

    def _kernel(self, kernel: Kernel) -> bytes:
        head = _words(
            self.string(kernel.name),
            kernel.slots,
            kernel.predicates,
            kernel.entry,
            kernel.shared,
            kernel.local,
            kernel.max_threads,
            *kernel.block,
            *kernel.cluster,
            kernel.registers,
            len(kernel.params),
            *(word for param in kernel.params for word in param),
            kernel.param_bytes,
            len(kernel.constants),
        )
        constants = b"".join(
            struct.pack("<QII", value & (2**64 - 1), variable & 0xFFFFFFFF, wide)
            for value, variable, wide in kernel.constants
        )
        total = sum(len(operation.operands) for operation in kernel.code)
        code = b"".join(operation.encode() for operation in kernel.code)
        return head + constants + _words(len(kernel.code), total) + code


def _words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
