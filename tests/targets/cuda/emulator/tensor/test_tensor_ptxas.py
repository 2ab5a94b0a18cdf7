"""Which instructions there are, and their registers: the emulator's tables against ptxas."""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.cuda.toolchain import find_nvcc

MULTIPLICANDS = ("f16", "bf16", "tf32", "f64", "e4m3", "e5m2", "s8", "u8", "s4", "u4", "b1")
TYPES = ("f16", "bf16", "tf32", "f32", "f64", "e4m3", "e5m2", "s8", "u8", "s4", "u4", "b1", "s32")
BITS = dict(zip(MULTIPLICANDS, (16, 16, 32, 64, 8, 8, 8, 8, 4, 4, 1), strict=True))
MIXED = ({"s8", "u8"}, {"s4", "u4"}, {"e4m3", "e5m2"}, {"f16", "bf16"}, {"s8", "s4"})
HEADER = """.version 8.7
.target sm_90a
.address_size 64
.visible .entry kernel()
{
.reg .b32 r<300>;
.reg .f32 f<300>;
.reg .f64 d<40>;
.reg .b64 x<2>;
.reg .pred p;
"""


@pytest.fixture(scope="module")
def ptxas() -> Path:
    """The assembler."""
    try:
        return find_nvcc().part("ptxas")
    except FewbitsError as error:
        pytest.skip(f"no nvcc: {error}")


def refused(ptxas: Path, folder: Path, instructions: Sequence[str]) -> set[int]:
    """Indices of the instructions that ptxas does not take."""
    source = folder / "kernel.ptx"
    source.write_text(HEADER + "\n".join(instructions) + "\nret;\n}\n", encoding="utf-8")
    done = subprocess.run(
        [ptxas, "-arch=sm_90a", "-O0", source, "-o", folder / "kernel.cubin"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = re.findall(r"line (\d+); error", done.stderr + done.stdout)
    assert bool(lines) == bool(done.returncode), done.stderr
    first = HEADER.count("\n") + 1
    return {int(line) - first for line in lines}


def vector(letter: str, first: int, count: int) -> str:
    """A vector operand."""
    return "{" + ", ".join(f"{letter}{first + i}" for i in range(count)) + "}"


def sum_letter(name: str) -> str:
    """The kind of register that holds an accumulator."""
    return {"f32": "f", "f64": "d"}.get(name, "r")


def mma_line(
    m: int, k: int, left: str, right: str, total: str, sparse: bool, counts: Sequence[int]
) -> str:
    """The instruction, with vectors of so many 32-bit registers."""
    wide = left == "f64"
    a, b, c = (count // 2 if wide else count for count in counts[:3])
    letter = "d" if wide else "r"
    sums = vector(sum_letter(total), 0, c)
    name = "mma.sp.sync" if sparse else "mma.sync"
    tail = ".and.popc" if left == "b1" else ""
    line = f"{name}.aligned.m{m}n8k{k}.row.col.{total}.{left}.{right}.{total}{tail} {sums}, "
    line += f"{vector(letter, 8, a)}, {vector(letter, 16, b)}, {sums}"
    return line + (", r30, 0;" if sparse else ";")


def test_mma(tensor: Any, ptxas: Path, tmp_path: Path) -> None:
    """All combinations of shapes and types: the same ones exist, with the same registers."""
    cases: list[tuple[str, bool]] = []
    sizes = (4, 8, 16, 32, 64, 128, 256)
    for m, k, left, total, sparse in itertools.product(
        (8, 16), sizes, MULTIPLICANDS, ("f16", "f32", "f64", "s32"), (False, True)
    ):
        for right in MULTIPLICANDS:
            if left != right and {left, right} not in MIXED:
                continue
            if (m, k, left) == (8, 4, "f16"):
                continue  # Volta's; its operands have layouts of their own
            numbers = (
                m,
                8,
                k,
                *(TYPES.index(name) for name in (left, right, total, total)),
                0,
                0,
                int(sparse),
                0,
            )
            counts = (ctypes.c_int32 * 4)()
            try:
                tensor.call("fb_mma_registers", (ctypes.c_int32 * 11)(*numbers), counts)
                exists = True
            except tensor.Error:
                exists = False
                counts = (ctypes.c_int32 * 4)(4, 2, 4, 4)
            cases.append((mma_line(m, k, left, right, total, sparse, list(counts)), exists))
    assert sum(exists for _, exists in cases) > 40
    found = refused(ptxas, tmp_path, [line for line, _ in cases])
    wrong = [line for i, (line, exists) in enumerate(cases) if exists == (i in found)]
    assert not wrong, "\n".join(wrong)


def test_wgmma(tensor: Any, ptxas: Path, tmp_path: Path) -> None:
    """Every n, dense and sparse, A in registers and behind a descriptor."""
    cases: list[tuple[str, bool]] = []
    for n, sparse, left in itertools.product(range(8, 265, 8), (False, True), MULTIPLICANDS):
        bits = BITS[left]
        k = 256 // bits * (2 if sparse else 1)
        for total, in_registers in itertools.product(("f16", "f32", "s32"), (False, True)):
            numbers = [n, k, *(TYPES.index(name) for name in (left, left, total))]
            numbers += [0, 1, 1, 1, 0, 0, int(sparse), 0]
            counts = (ctypes.c_int32 * 2)()
            try:
                tensor.call("fb_wgmma_registers", (ctypes.c_int32 * 13)(*numbers), counts)
                exists = True
            except tensor.Error:
                exists = False
                counts = (ctypes.c_int32 * 2)(4, n // 2)
            sums = vector(sum_letter(total), 0, counts[1])
            a = vector("r", 280, counts[0]) if in_registers else "x0"
            tail = ".and.popc" if left == "b1" else ""
            line = f"wgmma.mma_async{'.sp' if sparse else ''}.sync.aligned.m64n{n}k{k}"
            line += f".{total}.{left}.{left}{tail} {sums}, {a}, x1"
            line += ", r299, 0, p" if sparse else ", p"
            if left in ("f16", "bf16", "tf32", "e4m3", "e5m2"):
                line += ", 1, 1"
            if left in ("f16", "bf16"):
                line += ", 0" if in_registers else ", 0, 0"
            cases.append((line + ";", exists))
    assert sum(exists for _, exists in cases) > 500
    found = refused(ptxas, tmp_path, [line for line, _ in cases])
    wrong = [line for i, (line, exists) in enumerate(cases) if exists == (i in found)]
    assert not wrong, "\n".join(line[:120] for line in wrong)
