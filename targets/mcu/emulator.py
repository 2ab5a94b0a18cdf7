"""Runs firmware without a board: calls its functions, counts instructions, watches memory.

The emulated core is as strict as the real one where unicorn is lax: accesses that would fault for
their alignment, and, on request, accesses outside the memory that a caller handed over, are
errors that name the function and the layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import unicorn
from unicorn import arm_const, riscv_const
from unicorn.unicorn_py3.unicorn import Uc, UcError

from ...errors import FewbitsError, nearest
from .elf import Symbol, load
from .startup import GENERIC, Memory, MemoryMap
from .target import McuTarget
from .tracer import Tracer

DEFAULT_LIMIT = 20_000_000_000
LAYER_PREFIX = "fb_layer_"

_PAGE = 4096
_TRAP = 0x1FFF_F000
_WORKSPACE = 0x6000_0000
_PRIVATE_PERIPHERALS = 0xE000_E000
_STACK_FILL = 0xA5
_GAP = 64


@dataclasses.dataclass(frozen=True)
class _Abi:
    arguments: tuple[int, ...]
    result: int
    sp: int
    pc: int
    link: int
    alignment: int


_ABI = {
    "arm": _Abi(
        (
            arm_const.UC_ARM_REG_R0,
            arm_const.UC_ARM_REG_R1,
            arm_const.UC_ARM_REG_R2,
            arm_const.UC_ARM_REG_R3,
        ),
        arm_const.UC_ARM_REG_R0,
        arm_const.UC_ARM_REG_SP,
        arm_const.UC_ARM_REG_PC,
        arm_const.UC_ARM_REG_LR,
        8,
    ),
    "riscv": _Abi(
        tuple(range(riscv_const.UC_RISCV_REG_A0, riscv_const.UC_RISCV_REG_A0 + 8)),
        riscv_const.UC_RISCV_REG_A0,
        riscv_const.UC_RISCV_REG_SP,
        riscv_const.UC_RISCV_REG_PC,
        riscv_const.UC_RISCV_REG_RA,
        16,
    ),
}


@dataclasses.dataclass(frozen=True)
class CallResult:
    """What a call did.

    Attributes:
        value: the returned value as a signed 32-bit integer.
        instructions: instructions executed, exactly.
        per_function: instructions executed in each function's own code; ``"?"`` is code without a
            function symbol.
        per_region: for each region in order, instructions executed in it and in the functions it
            called that are no regions themselves. What the called function itself does is in none.
        stack_bytes: deepest use of the stack, arguments on the stack included.
    """

    value: int
    instructions: int
    per_function: dict[str, int]
    per_region: dict[str, int]
    stack_bytes: int


class Emulator:
    """One emulated microcontroller with a program in it. Calls keep memory, not registers.

    Variables have their initial values from the start, so functions can be called without `boot`.
    """

    def __init__(
        self,
        elf: Path,
        target: McuTarget,
        *,
        workspace: int = 16 << 20,
        regions: Sequence[str] | None = None,
        check_alignment: bool = False,
        guard: bool = False,
    ) -> None:
        """Loads a program.

        Args:
            elf: a program that `toolchain.build` linked for an Arm or RISC-V target.
            target: the core.
            workspace: bytes of extra memory that `allocate` hands out.
            regions: functions to which the work of what they call is attributed; None for the
                layers of generated firmware, the functions ``fb_layer_*``.
            check_alignment: make accesses errors that fault on the core for their alignment: on
                Armv6-M and RISC-V all unaligned ones, on larger Arm cores those of LDM, STM, LDRD,
                STRD and the floating-point unit.
            guard: make accesses errors outside of the program's own variables and constants, the
                stack, and what `allocate` and `permit` allow.

        Raises:
            FewbitsError: ``bad-elf``, ``unknown-symbol``, ``compiler-*`` (the tracer's build).
        """
        if target.family == "host" or target.emulator_cpu is None:
            raise FewbitsError(
                "not-emulated", f"target {target.name!r} runs on the host", hint="use HostRunner"
            )
        self.target = target
        self.image = load(elf)
        self.symbols = self.image.symbols
        self._elf = elf
        self._arm = target.family == "arm"
        self._abi = _ABI[target.family]
        self._engine = self._open()
        self.memory = self._memory_map()
        self._load()
        self._workspace = Memory(_WORKSPACE, -(-workspace // _PAGE) * _PAGE)
        self._engine.mem_map(self._workspace.base, self._workspace.size)
        self._engine.mem_map(_TRAP, _PAGE)
        self._free = self._workspace.base + _GAP
        self._guard = guard
        self._permitted: list[tuple[int, int, bool]] = []
        self._fault: str | None = None
        self._engine.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_fault)
        self._tracer = Tracer(
            self._engine,
            self.image.code,
            self.read(self.image.code.start, len(self.image.code)),
            riscv=not self._arm,
            armv6m=target.name == "cortex-m0plus",
            pc=self._abi.pc,
            trap=_TRAP,
            alignment=self._alignment() if check_alignment else 0,
            check_memory=check_alignment or guard,
        )
        functions = sorted(
            (symbol for symbol in self.symbols.values() if self._is_code(symbol)),
            key=lambda symbol: (symbol.address, symbol.kind != "function"),
        )
        self._functions = [
            symbol
            for index, symbol in enumerate(functions)
            if index == 0 or symbol.address != functions[index - 1].address
        ]
        self._starts = np.array([symbol.address for symbol in self._functions], np.uint64)
        self._regions = self._find_regions(regions)
        self._permit_program()
        self._context = self._engine.context_save()

    # Memory

    def symbol(self, name: str) -> int:
        """The address of a function or variable, or the value of an absolute symbol.

        Raises:
            FewbitsError: ``unknown-symbol``, with the nearest known name.
        """
        if name not in self.symbols:
            raise FewbitsError(
                "unknown-symbol",
                f"the program has no symbol {name!r}",
                where=str(self._elf),
                hint=nearest(name, self.symbols),
            )
        return self.symbols[name].address

    def write(self, address: int, data: bytes | bytearray | memoryview | np.ndarray) -> None:
        """Copies bytes (of an array: its elements in C order) into memory.

        Raises:
            FewbitsError: ``bad-address``.
        """
        raw = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
        try:
            self._engine.mem_write(address, raw)
        except UcError as error:
            raise self._bad_address(address, len(raw)) from error

    def read(self, address: int, size: int) -> bytes:
        """Copies bytes out of memory.

        Raises:
            FewbitsError: ``bad-address``.
        """
        try:
            return bytes(self._engine.mem_read(address, size))
        except UcError as error:
            raise self._bad_address(address, size) from error

    def allocate(self, size: int, alignment: int = 16, *, writable: bool = True) -> int:
        """Reserves memory outside the program's own, with gaps that `guard` watches.

        Raises:
            FewbitsError: ``out-of-memory`` when the workspace is used up.
        """
        address = -(-self._free // alignment) * alignment
        if address + size + _GAP > self._workspace.end:
            raise FewbitsError(
                "out-of-memory",
                f"{size} bytes do not fit into the emulator's workspace",
                hint="make the workspace larger",
            )
        self._free = address + size + _GAP
        self.permit(address, size, writable=writable)
        return address

    def place(self, data: bytes | np.ndarray, alignment: int = 16, *, writable: bool = True) -> int:
        """`allocate` and `write` in one step; the address."""
        raw = data.tobytes() if isinstance(data, np.ndarray) else data
        address = self.allocate(len(raw), alignment, writable=writable)
        self.write(address, raw)
        return address

    def release(self) -> None:
        """Takes back everything `allocate`, `place` and `permit` gave."""
        self._free = self._workspace.base + _GAP
        self._permit_program()

    def permit(self, address: int, size: int, *, writable: bool = True) -> None:
        """Lets the program use memory although `guard` is on."""
        self._permitted.append((address, size, writable))
        if self._guard:
            self._tracer.set_ranges(self._permitted)

    # Execution

    def call(
        self, function: str | int, *arguments: int, max_instructions: int | None = None
    ) -> CallResult:
        """Calls a C function with integer or pointer arguments of 32 bits.

        Args:
            function: name or address.
            arguments: integers, signed or unsigned.
            max_instructions: None for `DEFAULT_LIMIT`.

        Raises:
            FewbitsError: ``unknown-symbol``; ``emulator-crash`` for faults, undefined
                instructions and refused memory accesses; ``emulator-limit`` for a call that does
                not end.
        """
        entry = self.symbol(function) if isinstance(function, str) else function & ~1
        abi = self._abi
        on_stack = arguments[len(abi.arguments) :]
        sp = self.memory.ram.end - 4 * len(on_stack)
        sp -= sp % abi.alignment
        self._engine.context_restore(self._context)
        self._fill_stack()
        for register, value in zip(abi.arguments, arguments, strict=False):
            self._engine.reg_write(register, value & 0xFFFF_FFFF)
        for index, value in enumerate(on_stack):
            self.write(sp + 4 * index, (value & 0xFFFF_FFFF).to_bytes(4, "little"))
        self._engine.reg_write(abi.sp, sp)
        self._engine.reg_write(abi.link, _TRAP | self._arm)
        self._own_root(entry)
        return self._run(entry, _TRAP, max_instructions)

    def boot(self, max_instructions: int | None = None) -> CallResult:
        """Runs the program from reset until it calls ``fb_exit``; the value is the exit code.

        Raises:
            FewbitsError: as `call`.
        """
        stop = self.symbol("fb_exit")
        self._engine.context_restore(self._context)
        self._fill_stack()
        entry = self.image.entry & ~1
        if self._arm:  # a Cortex-M loads its stack pointer and its first address from the vectors
            vectors = self.read(self.memory.flash.base, 8)
            self._engine.reg_write(self._abi.sp, int.from_bytes(vectors[:4], "little"))
            entry = int.from_bytes(vectors[4:], "little") & ~1
        self._own_root(entry)
        return self._run(entry, stop, max_instructions)

    def _run(self, entry: int, until: int, limit: int | None) -> CallResult:
        self._fault = None
        self._tracer.start(limit or DEFAULT_LIMIT)
        failure: UcError | None = None
        try:
            self._engine.emu_start(entry | self._arm, until)
        except UcError as error:
            failure = error
        if self._tracer.problem:
            raise self._problem()
        pc = self._engine.reg_read(self._abi.pc)
        if failure is not None or pc & ~1 != until:
            raise self._crash(pc, self._fault or str(failure or "the core stopped"))
        value = self._engine.reg_read(self._abi.result)
        return CallResult(
            value=(value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000,
            instructions=self._tracer.total,
            per_function=self._per_function(),
            per_region={
                name: int(count)
                for name, count in zip(self._regions, self._tracer.region[2:], strict=True)
            },
            stack_bytes=self._stack_used(),
        )

    # Set-up

    def _open(self) -> Uc:
        name = self.target.emulator_cpu
        if self._arm:
            mode = unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
            engine = Uc(unicorn.UC_ARCH_ARM, mode, getattr(arm_const, str(name)))
            engine.mem_map(_PRIVATE_PERIPHERALS, _PAGE)
            return engine
        return Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32, getattr(riscv_const, str(name)))

    def _memory_map(self) -> MemoryMap:
        """The memories for which the program was linked, by the linker script's symbols."""
        value = {name: symbol.address for name, symbol in self.symbols.items()}
        if "fb_flash_start" not in value:
            return GENERIC[self.target.family]
        return MemoryMap(
            Memory(value["fb_flash_start"], value["fb_flash_end"] - value["fb_flash_start"]),
            Memory(value["fb_ram_start"], value["fb_ram_end"] - value["fb_ram_start"]),
            value["fb_stack_size"],
        )

    def _load(self) -> None:
        flash = unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC
        for memory, rights in (
            (self.memory.flash, flash),
            (self.memory.ram, unicorn.UC_PROT_ALL),
        ):
            start = memory.base // _PAGE * _PAGE
            self._engine.mem_map(start, -(-(memory.end - start) // _PAGE) * _PAGE, rights)
        for segment in self.image.segments:
            if segment.load_address != segment.address:
                self.write(segment.load_address, segment.data)
            self.write(segment.address, segment.data)

    def _alignment(self) -> int:
        strict = not self._arm or self.target.name == "cortex-m0plus"
        return 2 if strict else 1

    def _is_code(self, symbol: Symbol) -> bool:
        return symbol.address in self.image.code and symbol.kind == "function"

    def _find_regions(self, names: Sequence[str] | None) -> list[str]:
        """The regions in order; a compiler's clones (``name.constprop.0``) belong to the name."""
        pieces: dict[str, list[Symbol]] = {}
        for symbol in self._functions:
            pieces.setdefault(symbol.name.split(".")[0], []).append(symbol)
        wanted = (
            [name for name in pieces if name.startswith(LAYER_PREFIX)]
            if names is None
            else list(names)
        )
        self._owners: list[tuple[int, int, int]] = []
        self._root: int | None = None
        for index, name in enumerate(wanted):
            if name not in pieces:
                self.symbol(name)
            for symbol in pieces.get(name, ()):
                self._owners.append((symbol.address, symbol.size, index + 2))
        return wanted

    def _own_root(self, entry: int) -> None:
        """Region 1 is the called function itself: what it does between layers is no layer's."""
        if entry == self._root:
            return
        self._root = entry
        owners = list(self._owners)
        if all(address != entry for address, _, _ in owners):
            size = next((item.size for item in self._functions if item.address == entry), 0)
            owners.append((entry, size, 1))
        self._tracer.set_regions(len(self._regions) + 2, owners)

    def _permit_program(self) -> None:
        stack = self.memory.ram.end - self.memory.stack
        self._permitted = [(stack, self.memory.stack, True)]
        if self._arm:
            self._permitted.append((_PRIVATE_PERIPHERALS, _PAGE, True))
        for segment in self.image.segments:
            self._permitted.append((segment.address, segment.size, segment.writable))
            if segment.load_address != segment.address:
                self._permitted.append((segment.load_address, len(segment.data), False))
        if self._guard:
            self._tracer.set_ranges(self._permitted)

    # Results

    def _fill_stack(self) -> None:
        size = self.memory.stack
        self._engine.mem_write(self.memory.ram.end - size, bytes([_STACK_FILL]) * size)

    def _stack_used(self) -> int:
        size = self.memory.stack
        raw = np.frombuffer(self.read(self.memory.ram.end - size, size), np.uint8)
        touched = np.flatnonzero(raw != _STACK_FILL)
        return int(size - touched[0]) if touched.size else 0

    def _per_function(self) -> dict[str, int]:
        executed = self._tracer.executed
        where = np.flatnonzero(executed)
        addresses = where.astype(np.uint64) * np.uint64(2) + np.uint64(self.image.code.start)
        owner = np.searchsorted(self._starts, addresses, side="right")
        sums = np.bincount(owner, executed[where].astype(np.float64), len(self._starts) + 1)
        names = ["?", *(symbol.name for symbol in self._functions)]
        result: dict[str, int] = {}
        for name, count in zip(names, sums, strict=True):
            if count:
                result[name] = result.get(name, 0) + int(count)
        return result

    # Problems

    def _on_fault(
        self, engine: Uc, kind: int, address: int, size: int, value: int, user: object
    ) -> bool:
        what = {
            unicorn.UC_MEM_READ_UNMAPPED: "read",
            unicorn.UC_MEM_READ_PROT: "read",
            unicorn.UC_MEM_WRITE_UNMAPPED: "write",
            unicorn.UC_MEM_WRITE_PROT: "write",
        }.get(kind, "instruction fetch")
        place = "read-only memory" if kind == unicorn.UC_MEM_WRITE_PROT else "no memory"
        self._fault = f"{what} of {size} bytes at {address:#010x}, where there is {place}"
        return False

    def describe(self, address: int) -> str:
        """An address as ``function+0x12``, or in hexadecimal where no function is."""
        index = int(np.searchsorted(self._starts, np.uint64(address & ~1), side="right")) - 1
        if index >= 0 and address in self.image.code:
            symbol = self._functions[index]
            return f"{symbol.name}+{(address & ~1) - symbol.address:#x}"
        return f"{address:#010x}"

    def _place(self, pc: int) -> str:
        region = self._tracer.current - 2
        layer = f", in {self._regions[region]}" if region >= 0 else ""
        return f"{self.describe(pc)}{layer}"

    def _crash(self, pc: int, what: str) -> FewbitsError:
        return FewbitsError(
            "emulator-crash",
            f"the program crashed on {self.target.name}: {what}",
            where=self._place(pc),
            hint="a pointer or a size that the function was given may be wrong",
        )

    def _problem(self) -> FewbitsError:
        problem = self._tracer.problem
        address, size, pc = self._tracer.bad_access
        if problem == "limit":
            return FewbitsError(
                "emulator-limit",
                f"the call did not end within {self._tracer.total} instructions",
                where=self._place(pc),
                hint="the program may be in an endless loop; otherwise raise max_instructions",
            )
        if problem == "outside-code":
            return self._crash(address, f"jump to {address:#010x}, where there is no code")
        if problem == "undefined":
            return self._crash(address, f"instruction that {self.target.name} does not have")
        access = f"of {size} bytes at {address:#010x}"
        if problem == "unaligned":
            return self._crash(pc, f"unaligned access {access}")
        verb = "write" if problem == "guard-write" else "read"
        return self._crash(pc, f"{verb} {access}, which was not handed to the program")

    def _bad_address(self, address: int, size: int) -> FewbitsError:
        return FewbitsError(
            "bad-address", f"there is no memory for {size} bytes at {address:#010x}"
        )
