"""What surrounds `main` on a bare core: start-up sources and the linker script of a memory map.

The files are in `runtime/`, readable C and linker scripts, and generated projects get copies of
them; this module only says which belong to a target and fills in the memory map.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from .target import McuTarget

RUNTIME = Path(__file__).parent / "runtime"

_STARTUP: dict[str, tuple[str, ...]] = {
    "arm": ("startup_arm.c",),
    "riscv": ("startup_riscv.S", "startup_riscv.c"),
    "host": (),
}
_ENTRY = {"arm": "Reset_Handler", "riscv": "_start"}


@dataclasses.dataclass(frozen=True)
class Memory:
    """One range of addresses: first address and size in bytes."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind the range."""
        return self.base + self.size


@dataclasses.dataclass(frozen=True)
class MemoryMap:
    """Where a chip's flash and RAM are, and how much of the RAM's end is kept for the stack."""

    flash: Memory
    ram: Memory
    stack: int = 4096


# A roomy map for code that is only emulated: nothing at address zero, so that null pointers trap.
GENERIC: dict[str, MemoryMap] = {
    "arm": MemoryMap(Memory(0x0800_0000, 64 << 20), Memory(0x2000_0000, 64 << 20), 64 << 10),
    "riscv": MemoryMap(Memory(0x2000_0000, 64 << 20), Memory(0x8000_0000, 64 << 20), 64 << 10),
}


def startup_sources(target: McuTarget) -> tuple[Path, ...]:
    """The start-up files of a core family, to be compiled with the firmware; none on the host."""
    return tuple(RUNTIME / name for name in _STARTUP[target.family])


def entry_symbol(target: McuTarget) -> str:
    """The symbol at which a firmware starts after reset (not for the host)."""
    return _ENTRY[target.family]


def linker_script(target: McuTarget, memory: MemoryMap | None = None) -> str:
    """The text of the linker script for a core family and a memory map.

    Args:
        target: an Arm or RISC-V target.
        memory: the chip's memories; None for `GENERIC`, which only the emulator has.
    """
    layout = memory or GENERIC[target.family]
    text = (RUNTIME / f"{target.family}.ld.in").read_text(encoding="utf-8")
    for name, value in {
        "FLASH_BASE": layout.flash.base,
        "FLASH_SIZE": layout.flash.size,
        "RAM_BASE": layout.ram.base,
        "RAM_SIZE": layout.ram.size,
        "STACK_SIZE": layout.stack,
    }.items():
        text = text.replace(f"@{name}@", f"{value:#x}")
    return text
