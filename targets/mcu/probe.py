"""Builds and runs single kernel calls, apart from any model: for kernel tests and benchmarks.

Every call becomes one C function with its literals and constants in place, as in a generated
project, and takes its buffers as pointers. On a core it runs in the emulator, which refuses stray
and badly aligned accesses and counts instructions; on the host it runs in a process of its own,
under sanitizers if asked.
"""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import toolchain
from .emulator import Emulator
from .program import Buffer, Constant, KernelCall, Scratch
from .target import McuTarget

KERNELS = Path(__file__).parent / "kernels"
_CTYPES = {
    "int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t",
    "uint16": "uint16_t", "uint32": "uint32_t", "float32": "float",
}  # fmt: skip
_FILL = 0xA5


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
        compiler: a GNU compiler, or None for `zig cc`.
        sanitize: build with address and undefined-behaviour sanitizers (host only, with the
            machine's own compiler).

    Raises:
        FewbitsError: ``compiler-failed``, ``compiler-missing``.
    """

    def __init__(
        self,
        calls: Sequence[KernelCall],
        target: McuTarget,
        compiler: str | None = None,
        sanitize: bool = False,
    ) -> None:
        self.calls = tuple(calls)
        host = target.family == "host"
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        source = folder / "probe.c"
        source.write_text(_source(self.calls, host), encoding="utf-8")
        self.build = toolchain.build(
            [source],
            target,
            folder / "probe.elf",
            include=[KERNELS],
            roots=None if host else [_name(i) for i in range(len(self.calls))],
            compiler=toolchain.system_compiler() if sanitize else compiler,
            sanitize=("address", "undefined") if sanitize else (),
            optimize="-O0" if sanitize else "-O2",  # sanitizers take half a minute to optimize
        )
        self._emulator = (
            None if host else Emulator(self.build.elf, target, check_alignment=True, guard=True)
        )

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
            misalign: bytes by which every buffer misses its alignment.

        Raises:
            FewbitsError: ``emulator-crash`` when the call touches memory that is not its own.
            RuntimeError: the same from the host's sanitizers.
        """
        call = self.calls[index]
        if self._emulator is None:
            return self._run_on_host(index, call, inputs, distance)
        core = self._emulator
        core.release()
        places: dict[str, int] = {}
        if distance is not None:
            first, output = call.inputs[0], call.outputs[0]
            size = max(distance + first.bytes, output.bytes)
            start = core.place(bytes([_FILL]) * (size + misalign)) + misalign
            places = {output.name: start, first.name: start + distance}
        for buffer in (*call.inputs, *call.outputs):
            if buffer.name not in places:
                place = core.place(
                    bytes([_FILL]) * (buffer.bytes + misalign),
                    writable=buffer.name not in {b.name for b in call.inputs},
                )
                places[buffer.name] = place + misalign
        for buffer, array in zip(call.inputs, inputs, strict=True):
            core.write(places[buffer.name], np.ascontiguousarray(array))
        scratch = core.place(bytes([_FILL]) * call.scratch, 8)
        result = core.call(_name(index), *(places[b.name] for b in _buffers(call)), scratch)
        outputs = [_array(core.read(places[b.name], b.bytes), b) for b in call.outputs]
        return Outcome(tuple(outputs), result.instructions)

    def _run_on_host(
        self,
        index: int,
        call: KernelCall,
        inputs: Sequence[np.ndarray],
        distance: int | None,
    ) -> Outcome:
        """Run in a process that has every buffer, or those that overlap together, on its heap."""
        header = np.array([index, -1 if distance is None else distance], np.int32).tobytes()
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in inputs)
        result = subprocess.run(
            [str(self.build.elf)],
            input=header + data,
            capture_output=True,
            env={"ASAN_OPTIONS": "detect_leaks=0"},
        )
        if result.returncode:
            raise RuntimeError(result.stderr.decode(errors="replace"))
        outputs, offset = [], 0
        for buffer in call.outputs:
            outputs.append(_array(result.stdout[offset : offset + buffer.bytes], buffer))
            offset += buffer.bytes
        return Outcome(tuple(outputs), None)


def _buffers(call: KernelCall) -> tuple[Buffer, ...]:
    return (*call.inputs, *call.outputs)


def _array(raw: bytes, buffer: Buffer) -> np.ndarray:
    return np.frombuffer(raw, buffer.dtype).reshape(buffer.shape)


def _name(index: int) -> str:
    return f"probe_{index}"


def _source(calls: Sequence[KernelCall], host: bool) -> str:
    headers = dict.fromkeys(call.header for call in calls if call.header)
    lines = [f'#include "{header}"' for header in headers]
    lines += dict.fromkeys(call.source for call in calls if call.source)
    for number, call in enumerate(calls):
        lines += _function(number, call)
    if host:
        lines.append(_host_main(calls))
    return "\n".join(lines) + "\n"


def _function(number: int, call: KernelCall) -> list[str]:
    """Constants and the C function of one call."""
    lines: list[str] = []
    names = [buffer.name for buffer in _buffers(call)]
    spelled = []
    for position, argument in enumerate(call.arguments):
        if isinstance(argument, Buffer):
            spelled.append(f"({_CTYPES[argument.dtype]} *)b{names.index(argument.name)}")
        elif isinstance(argument, Constant):
            constant = f"constant_{number}_{position}"
            values = ", ".join(map(_literal, argument.array.ravel().tolist()))
            lines.append(
                f"static const {_CTYPES[str(argument.array.dtype)]} {constant}[] "
                f"__attribute__((aligned({argument.alignment}))) = {{{values}}};"
            )
            spelled.append(constant)
        else:
            spelled.append("scratch" if isinstance(argument, Scratch) else str(argument))
    parameters = ", ".join([*(f"void *b{i}" for i in range(len(names))), "void *scratch"])
    lines.append(f"void {_name(number)}({parameters});")
    lines.append(f"void {_name(number)}({parameters}) {{")
    lines.append("    (void)scratch;")
    lines.append(f"    {call.function}({', '.join(spelled)});")
    lines.append("}")
    return lines


def _literal(value: float) -> str:
    """A number in C, whose floats have no spelling for what is no number."""
    text = str(value)
    return {
        "nan": '__builtin_nanf("")',
        "inf": "__builtin_inff()",
        "-inf": "-__builtin_inff()",
    }.get(text, text)


_HOST_MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void *take(size_t size) {
    void *memory = malloc(size ? size : 1);
    if (!memory) exit(3);
    memset(memory, 0xa5, size ? size : 1);
    return memory;
}
static void get(void *memory, size_t size) {
    if (size && fread(memory, 1, size, stdin) != size) exit(4);
}
int main(void) {
    int32_t header[2];
    get(header, sizeof header);
    const int32_t distance = header[1];
    void *b[16];
    switch (header[0]) {
CASES
    }
    return 0;
}
"""


def _host_main(calls: Sequence[KernelCall]) -> str:
    """A program that reads call, distance and inputs, and writes outputs. Every buffer is a heap
    block of its exact size, so that sanitizers see each stray access."""
    cases = []
    for number, call in enumerate(calls):
        buffers = _buffers(call)
        first, output = call.inputs[0].bytes, call.outputs[0].bytes
        position = len(call.inputs)
        lines = [f"    case {number}:"]
        lines += [f"        b[{i}] = take({buffer.bytes});" for i, buffer in enumerate(buffers)]
        lines += [
            "        if (distance >= 0) {",
            f"            const size_t end = (size_t)distance + {first};",
            f"            char *both = take(end > {output} ? end : {output});",
            f"            b[{position}] = both, b[0] = both + distance;",
            "        }",
        ]
        lines += [f"        get(b[{i}], {buffer.bytes});" for i, buffer in enumerate(call.inputs)]
        arguments = ", ".join(f"b[{i}]" for i in range(len(buffers)))
        lines.append(f"        {_name(number)}({arguments}, take({call.scratch}));")
        for i, buffer in enumerate(call.outputs):
            lines.append(f"        fwrite(b[{position + i}], 1, {buffer.bytes}, stdout);")
        lines.append("        break;")
        cases += lines
    return _HOST_MAIN.replace("CASES", "\n".join(cases))
