"""Many programs in one executable: compiled once, run in a child process, with sanitizers.

Building a firmware project for each of a thousand small models takes an hour. Here their kernel
calls are printed into one C file, every buffer, constant and scratch memory is an allocation of its
own (so that the address sanitizer sees each overflow), and a crash costs one program only.
"""

from __future__ import annotations

import dataclasses
import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from fewbits.targets.mcu import toolchain
from fewbits.targets.mcu.program import Argument, Buffer, Constant, KernelCall, Program, Scratch

KERNELS = Path(__file__).resolve().parent.parent / "targets" / "mcu" / "kernels"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)

_PRELUDE = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char *blob;
static FILE *results;

/* An allocation of its own, filled from the data file where `offset` is not negative. */
static void *take(size_t bytes, long offset) {
    void *memory = malloc(bytes ? bytes : 1);
    if (memory == NULL) exit(3);
    if (offset >= 0) memcpy(memory, blob + offset, bytes);
    else memset(memory, 0xa5, bytes);
    return memory;
}
"""

_MAIN = """
int main(int count, char **arguments) {
    long size;
    unsigned char *data;
    FILE *file;
    int first;
    if (count != 4) return 2;
    file = fopen(arguments[1], "rb");
    results = fopen(arguments[2], "ab");
    first = atoi(arguments[3]);
    if (file == NULL || results == NULL) return 2;
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    data = malloc((size_t)size + 1);
    if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) return 2;
    blob = data;
    for (int i = first; i < (int)(sizeof programs / sizeof programs[0]); i++) {
        programs[i]();
        fflush(results);
    }
    return 0;
}
"""


def compiler() -> tuple[str, ...]:
    """A C compiler and its sanitizers: the machine's own where there is one (it finds every stray
    access), else the one that pip installs (undefined behaviour only)."""
    system = toolchain.system_compiler()
    if system is not None:
        return (system, *SANITIZERS)
    return (sys.executable, "-m", "ziglang", "cc", "-fsanitize=undefined", "-fsanitize-trap=all")


@dataclasses.dataclass(frozen=True)
class Case:
    """A program and the values of its inputs by name."""

    name: str
    program: Program
    inputs: Mapping[str, np.ndarray]


class _Printer:
    def __init__(self) -> None:
        self.blob = bytearray()
        self.headers: dict[str, None] = {}
        self.functions: dict[str, str] = {}
        self.bodies: list[str] = []

    def add(self, index: int, case: Case) -> None:
        program = case.program
        names: dict[str, str] = {}
        lines: list[str] = []

        def buffer(one: Buffer) -> str:
            root = program.aliases.get(one.name, one)
            if root.name not in names:
                names[root.name] = f"b{len(names)}"
                offset = -1
                if any(root.name == given.name for given in program.inputs):
                    offset = self.store(case.inputs[root.name], root.dtype)
                lines.append(f"    void *{names[root.name]} = take({root.bytes}, {offset});")
            return names[root.name]

        for one in program.inputs:
            buffer(one)
        for call in program.calls:
            for one in (*call.inputs, *call.outputs):
                buffer(one)
            if call.header:
                self.headers[call.header] = None
            if call.source:
                self.headers.update(dict.fromkeys(_INCLUDE.findall(call.source)))
                self.functions[call.function] = _INCLUDE.sub("", call.source)
            arguments = [self.argument(a, call, buffer, lines) for a in call.arguments]
            lines.append(f"    {call.function}({', '.join(arguments)});")
        for one in program.outputs:
            lines.append(f"    fwrite({buffer(one)}, 1, {one.bytes}, results);")
        size = sum(one.bytes for one in program.outputs)
        head = f"    const int32_t head[2] = {{{index}, {size}}};"
        write = "    fwrite(head, 1, sizeof head, results);"
        first = next(i for i, line in enumerate([*lines, "    fwrite"]) if "    fwrite" in line)
        lines = [head, *lines[:first], write, *lines[first:]]
        frees = [f"    free({name});" for name in names.values()]
        body = "\n".join([*lines, *frees])
        self.bodies.append(f"static void program_{index}(void) {{\n{body}\n}}\n")

    def argument(self, value: Argument, call: KernelCall, buffer, lines: list[str]) -> str:
        if isinstance(value, Buffer):
            return buffer(value)
        if isinstance(value, Scratch):
            return f"take({call.scratch}, -1)"
        if isinstance(value, Constant):
            array = np.ascontiguousarray(value.array)
            return f"take({array.nbytes}, {self.store(array, str(array.dtype))})"
        return repr(value)

    def store(self, array: np.ndarray, dtype: str) -> int:
        while len(self.blob) % 16:
            self.blob.append(0)
        offset = len(self.blob)
        self.blob += np.ascontiguousarray(array.astype(dtype)).tobytes()
        return offset


def run(
    cases: Sequence[Case],
    folder: Path,
    optimize: str = "-O0",
) -> dict[str, list[np.ndarray] | str]:
    """Compile and run all programs, with all sanitizers that the machine's compiler has.

    Args:
        cases: distinct names.
        folder: where sources, executable and data are written.
        optimize: the compiler's level; sanitizers take half a minute to optimize.

    Returns:
        By case the outputs in order, or what killed the program.

    Raises:
        subprocess.CalledProcessError: the C does not compile.
    """
    printer = _Printer()
    for index, case in enumerate(cases):
        printer.add(index, case)
    table = ", ".join(f"program_{i}" for i in range(len(cases)))
    source = "\n".join(
        [
            _PRELUDE,
            *(f'#include "{name}"' for name in printer.headers),
            *printer.functions.values(),
            *printer.bodies,
            f"static void (*const programs[])(void) = {{{table}}};",
            _MAIN,
        ]
    )
    (folder / "batch.c").write_text(source)
    (folder / "data.bin").write_bytes(bytes(printer.blob))
    executable = folder / "batch"
    subprocess.run(
        [
            *compiler(),
            *WARNINGS,
            optimize,
            f"-I{KERNELS}",
            str(folder / "batch.c"),
            "-o",
            str(executable),
        ],
        check=True,
    )
    results: dict[str, list[np.ndarray] | str] = {}
    start = 0
    while start < len(cases):
        output = folder / "results.bin"
        output.unlink(missing_ok=True)
        child = subprocess.run(
            [str(executable), str(folder / "data.bin"), str(output), str(start)],
            capture_output=True,
            text=True,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )
        done = _read(output.read_bytes() if output.exists() else b"", cases, results)
        if child.returncode == 0:
            break
        crashed = max(done, start - 1) + 1
        reason = next((x for x in child.stderr.splitlines() if "rror" in x), child.stderr[:200])
        results[cases[crashed].name] = reason or f"exit status {child.returncode}"
        start = crashed + 1
    return results


def _read(data: bytes, cases: Sequence[Case], results: dict[str, list[np.ndarray] | str]) -> int:
    """Store the finished programs' outputs; returns the last one's index, -1 for none."""
    position, last = 0, -1
    while position + 8 <= len(data):
        index, size = struct.unpack_from("<ii", data, position)
        if position + 8 + size > len(data):
            break
        position += 8
        arrays = []
        for buffer in cases[index].program.outputs:
            array = np.frombuffer(data, np.uint8, buffer.bytes, position).view(buffer.dtype)
            arrays.append(array.reshape(buffer.shape).copy())
            position += buffer.bytes
        results[cases[index].name] = arrays
        last = index
    return last
