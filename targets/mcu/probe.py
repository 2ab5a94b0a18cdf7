"""Builds and runs single kernel calls, apart from any model: for kernel tests and benchmarks.

Every call becomes one C function with its literals and constants in place, as in a generated
project, and takes its buffers as pointers. On a core it runs in unicorn between guard zones, with
an exact instruction count; on the host it runs in a process of its own, under sanitizers if asked.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import FewbitsError
from .program import Buffer, Constant, KernelCall, Scratch
from .target import McuTarget

KERNELS = Path(__file__).parent / "kernels"
ZIG = (sys.executable, "-m", "ziglang", "cc")
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-ffreestanding")
ZIG_FLAGS = (
    "-O2", "-fomit-frame-pointer", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
    "-fno-sanitize=all",
)  # fmt: skip
GCC_FLAGS = ("-O2", "-fno-schedule-insns")
_CTYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t"}
_GUARD = 64
_CODE, _CODE_BYTES = 0, 0x0100_0000
_RAM, _RAM_BYTES = 0x2000_0000, 0x0040_0000
_STACK_TOP = _RAM + _RAM_BYTES - 1024


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call left behind: its outputs, and the instructions it took (None on the host)."""

    outputs: tuple[np.ndarray, ...]
    instructions: int | None


class Probe:
    """Some kernel calls, built for one target.

    Args:
        calls: the calls.
        target: the core.
        compiler: ``"zig"`` or ``"gcc"``.
        sanitize: build with address and undefined-behaviour sanitizers (host only, with gcc).

    Raises:
        FewbitsError: ``compiler-failed``, with the compiler's message.
    """

    def __init__(
        self,
        calls: Sequence[KernelCall],
        target: McuTarget,
        compiler: str = "zig",
        sanitize: bool = False,
    ) -> None:
        self.calls = tuple(calls)
        self.target = target
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        source = self._path / "probe.c"
        source.write_text(_source(self.calls, target.family == "host"))
        self._binary = self._path / "probe.elf"
        command = [*ZIG, *ZIG_FLAGS, *target.zig_flags]
        if compiler == "gcc":
            command = [target.gcc, *GCC_FLAGS, *target.gcc_flags]
        if target.family == "host":
            command = ["gcc", "-O1", "-g"] if sanitize else [*ZIG, "-O2"]
            if sanitize:
                command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
            command += ["-fno-builtin"]
        else:
            command += ["-nostdlib", "-Wl,-e,call_0"]
        command += [*FLAGS, f"-I{KERNELS}", str(source), "-o", str(self._binary)]
        if compiler == "gcc" and target.family != "host":
            command += ["-lgcc"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise FewbitsError("compiler-failed", result.stderr, hint=" ".join(command))
        self._machine = None if target.family == "host" else _Machine(self._binary, target)

    def run(
        self,
        index: int,
        inputs: Sequence[np.ndarray],
        distance: int | None = None,
        misalign: int = 0,
    ) -> Outcome:
        """Run one call.

        Args:
            index: which call.
            inputs: one array per input buffer.
            distance: place the output this many bytes before the first input, sharing memory;
                None gives every buffer its own place.
            misalign: bytes to shift every buffer from its alignment of 4.

        Raises:
            AssertionError: the call touched memory that is not its own.
        """
        call = self.calls[index]
        buffers = (*call.inputs, *call.outputs)
        places, size = {}, 1024 * 16
        for buffer in buffers:
            size += _GUARD
            places[buffer.name] = size
            size += (buffer.bytes + 7) // 8 * 8
        if distance is not None:
            first, output = call.inputs[0], call.outputs[0]
            start = size + _GUARD + max(distance, 0)
            places[first.name], places[output.name] = start, start - distance
            size = start + max(first.bytes, output.bytes)
        places = {name: place + misalign for name, place in places.items()}
        scratch = (size + misalign + _GUARD + 7) // 8 * 8
        size = scratch + (call.scratch + 7) // 8 * 8 + _GUARD
        memory = np.full(size, 0xA5, np.uint8)
        owned = np.zeros(size, bool)
        for buffer, array in zip(call.inputs, inputs, strict=True):
            raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            memory[places[buffer.name] : places[buffer.name] + buffer.bytes] = raw
        for buffer in buffers:
            owned[places[buffer.name] : places[buffer.name] + buffer.bytes] = True
        owned[scratch : scratch + call.scratch] = True
        offsets = [*(places[b.name] for b in buffers), scratch]
        if self._machine is not None:
            after, count = self._machine.call(f"call_{index}", offsets, memory, owned)
        else:
            after, count = self._host(index, offsets, memory, call, scratch), None
        written = owned.copy()
        for buffer in call.inputs:  # Inputs that share no memory with the output stay as they are.
            if distance is None:
                written[places[buffer.name] : places[buffer.name] + buffer.bytes] = False
        changed = (after != memory) & ~written
        assert not changed.any(), f"wrote outside its memory at {np.flatnonzero(changed)[:8]}"
        outputs = tuple(
            after[places[b.name] : places[b.name] + b.bytes].view(b.dtype).reshape(b.shape)
            for b in call.outputs
        )
        return Outcome(outputs, count)

    def _host(
        self,
        index: int,
        offsets: Sequence[int],
        memory: np.ndarray,
        call: KernelCall,
        scratch: int,
    ) -> np.ndarray:
        """Run in a process. Memory arrives and leaves through pipes."""
        header = np.array([index, len(memory), *offsets], np.int32).tobytes()
        result = subprocess.run(
            [str(self._binary)],
            input=header + memory.tobytes(),
            capture_output=True,
            env={"ASAN_OPTIONS": "detect_leaks=0"},
        )
        assert result.returncode == 0, result.stderr.decode()
        return np.frombuffer(result.stdout, np.uint8)

    def text_bytes(self) -> int:
        """Size of the code."""
        from elftools.elf.elffile import ELFFile

        with self._binary.open("rb") as stream:
            return ELFFile(stream).get_section_by_name(".text").data_size


def _source(calls: Sequence[KernelCall], host: bool) -> str:
    lines = [f'#include "{h}"' for h in dict.fromkeys(c.header for c in calls if c.header)]
    lines += ["#include <stdint.h>"]
    for number, call in enumerate(calls):
        names: dict[int, str] = {}
        for i, argument in enumerate(call.arguments):
            if isinstance(argument, Constant):
                names[i] = f"c{number}_{i}"
                array = argument.array
                body = ",".join(str(v) for v in array.ravel().tolist())
                align = f"__attribute__((aligned({argument.alignment})))"
                ctype = _CTYPES[str(array.dtype)]
                lines.append(f"static const {ctype} {names[i]}[] {align} = {{{body}}};")
        buffers = (*call.inputs, *call.outputs)
        parameters = ", ".join(f"void *b{i}" for i in range(len(buffers)))
        spelled = []
        for i, argument in enumerate(call.arguments):
            if isinstance(argument, Buffer):
                position = [b.name for b in buffers].index(argument.name)
                spelled.append(f"({_CTYPES[argument.dtype]} *)b{position}")
            elif isinstance(argument, Constant):
                spelled.append(names[i])
            elif isinstance(argument, Scratch):
                spelled.append("scratch")
            else:
                spelled.append(str(argument))
        lines.append(f"void call_{number}({parameters}, void *scratch);")
        lines.append(f"void call_{number}({parameters}, void *scratch) {{ (void)scratch;")
        lines.append(f"    {call.function}({', '.join(spelled)}); }}")
    if host:
        lines.append(_host_main(calls))
    return "\n".join(lines) + "\n"


def _host_main(calls: Sequence[KernelCall]) -> str:
    """Reads memory from stdin, calls, writes memory to stdout. Buffers and scratch are copied to
    heap blocks of their exact size, so that sanitizers see every stray access, unless they
    overlap."""
    cases = []
    for number, call in enumerate(calls):
        sizes = [b.bytes for b in (*call.inputs, *call.outputs)] + [call.scratch]
        last = len(sizes) - 1
        code = [f"    case {number}: {{ static const int32_t sizes[] = {{{_commas(sizes)}}};"]
        code.append(f"        int together = overlapping(at, sizes, {last});")
        code.append(f"        for (int i = 0; i < {last + 1}; i++) {{")
        code.append(
            "            own[i] = together ? memory + at[i] : copy(memory + at[i], sizes[i]);"
        )
        code.append("        }")
        code.append(f"        call_{number}({', '.join(f'own[{i}]' for i in range(last + 1))});")
        code.append(f"        for (int i = 0; i < {last + 1} && !together; i++)")
        code.append("            memcpy(memory + at[i], own[i], (size_t)sizes[i]);")
        code.append("        break; }")
        cases += code
    counts = [len(call.inputs) + len(call.outputs) + 1 for call in calls]
    return _HOST_MAIN.replace("CASES", "\n".join(cases)).replace("COUNTS", _commas(counts))


_HOST_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int overlapping(const int32_t *at, const int32_t *sizes, int count) {
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++)
            if (at[i] < at[j] + sizes[j] && at[j] < at[i] + sizes[i]) return 1;
    return 0;
}
static uint8_t *copy(const uint8_t *from, int32_t size) {
    uint8_t *block = malloc((size_t)size);
    if (size) memcpy(block, from, (size_t)size);
    return block;
}
int main(void) {
    int32_t header[2], at[16] = {0};
    uint8_t *own[16];
    static const int counts[] = {COUNTS};
    if (fread(header, 4, 2, stdin) != 2) return 2;
    int count = counts[header[0]];
    if (fread(at, 4, (size_t)count, stdin) != (size_t)count) return 2;
    uint8_t *memory = malloc((size_t)header[1]);
    if (fread(memory, 1, (size_t)header[1], stdin) != (size_t)header[1]) return 2;
    switch (header[0]) {
CASES
    }
    fwrite(memory, 1, (size_t)header[1], stdout);
    return 0;
}
"""


def _commas(values: Sequence[int]) -> str:
    return ", ".join(str(v) for v in values)


class _Machine:
    """An emulated core with the code loaded."""

    def __init__(self, binary: Path, target: McuTarget) -> None:
        import unicorn
        from elftools.elf.elffile import ELFFile
        from unicorn import arm_const, riscv_const

        self.thumb = target.family == "arm"
        if self.thumb:
            mode = unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
            self.core = unicorn.Uc(unicorn.UC_ARCH_ARM, mode)
            self.core.ctl_set_cpu_model(getattr(arm_const, str(target.emulator_cpu)))
            registers = [getattr(arm_const, f"UC_ARM_REG_R{i}") for i in range(4)]
            self.stack, self.link = arm_const.UC_ARM_REG_SP, arm_const.UC_ARM_REG_LR
        else:
            self.core = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
            registers = [getattr(riscv_const, f"UC_RISCV_REG_A{i}") for i in range(8)]
            self.stack, self.link = riscv_const.UC_RISCV_REG_SP, riscv_const.UC_RISCV_REG_RA
        self.registers = registers
        self.core.mem_map(_CODE, _CODE_BYTES)
        self.core.mem_map(_RAM, _RAM_BYTES)
        self.symbols: dict[str, int] = {}
        with binary.open("rb") as stream:
            elf = ELFFile(stream)
            for segment in elf.iter_segments("PT_LOAD"):
                if segment.header.p_filesz:
                    self.core.mem_write(segment.header.p_vaddr, segment.data())
            table = elf.get_section_by_name(".symtab")
            self.symbols = {s.name: s.entry.st_value for s in table.iter_symbols()}
        self.counts: dict[tuple[int, int], int] = {}
        self.executed = 0
        self.core.hook_add(unicorn.UC_HOOK_BLOCK, self._block)
        self.owned: np.ndarray | None = None
        self.strays: list[int] = []
        kinds = unicorn.UC_HOOK_MEM_READ
        self._watch = lambda: self.core.hook_add(
            kinds, self._access, None, _RAM + 4096, _STACK_TOP - 65536
        )

    def _block(self, core, address: int, size: int, _: object) -> None:
        count = self.counts.get((address, size))
        if count is None:
            halves = np.frombuffer(bytes(core.mem_read(address, size)), "<u2")
            count, i = 0, 0
            while i < len(halves):
                long = halves[i] >= 0xE800 if self.thumb else (halves[i] & 3) == 3
                i += 2 if long else 1
                count += 1
            self.counts[(address, size)] = count
        self.executed += count

    def _access(self, core, access: int, address: int, size: int, value: int, _: object) -> None:
        offset = address - _RAM
        if self.owned is not None and not self.owned[offset : offset + size].all():
            self.strays.append(offset)

    def call(
        self, name: str, offsets: Sequence[int], memory: np.ndarray, owned: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Call a function with pointers into RAM. Returns RAM afterwards, and the count."""
        core = self.core
        core.mem_write(_RAM, memory.tobytes())
        self.owned, self.strays, self.executed = owned, [], 0
        watch = self._watch() if len(memory) < 64 * 1024 else None
        stop = _CODE + _CODE_BYTES - 4096
        stack = _STACK_TOP
        pointers = [_RAM + offset for offset in offsets]
        extra = pointers[len(self.registers) :]
        stack -= (len(extra) * 4 + 7) // 8 * 8
        core.mem_write(stack, np.array([*extra, 0], np.uint32).tobytes())
        for register, pointer in zip(self.registers, pointers, strict=False):
            core.reg_write(register, pointer)
        core.reg_write(self.stack, stack)
        core.reg_write(self.link, stop | (1 if self.thumb else 0))
        entry = self.symbols[name]
        core.emu_start(entry | (1 if self.thumb else 0), stop)
        if watch is not None:
            core.hook_del(watch)
        assert not self.strays, f"read outside its memory at {self.strays[:8]}"
        after = np.frombuffer(bytes(core.mem_read(_RAM, len(memory))), np.uint8)
        return after, self.executed
