"""What became of a kernel: its registers, memory and instructions, read from the machine code.

Whether a kernel is what its author meant (tensor-core instructions, nothing spilled) is seen here
without a GPU.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import FewbitsError
from ...schedules.cuda.architecture import Architecture
from ...schedules.cuda.template import Kernel
from .compile import compile_kernels, fatbin
from .fatbin import Entry, entries
from .toolchain import disassembler, find_nvcc, run_tool

_ENTRY = re.compile(r"Compiling entry function '([^']+)' for")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_SECTION = re.compile(r"^\s*\.section\s+\.text\.([^\s,\"]+)")
_INSTRUCTION = re.compile(
    r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)"
)


@dataclasses.dataclass(frozen=True)
class MachineCode:
    """One kernel as ptxas made it.

    Attributes:
        name: its global symbol.
        architecture: what it runs on.
        registers: of each thread.
        shared: static shared memory of a block, bytes; what a launch asks for is not in it.
        stack: bytes of each thread.
        spill: bytes stored and loaded because registers did not suffice.
        instructions: how often each mnemonic with its modifiers occurs in the text, NOP left out.
        ptx: the text of the whole module.
    """

    name: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spill: int
    instructions: Mapping[str, int]
    ptx: str

    def count(self, instruction: str) -> int:
        """How many instructions begin with this, e.g. ``"IMMA"`` or ``"LDG.E.128"``."""
        wanted = instruction.split(".")
        return sum(
            number
            for mnemonic, number in self.instructions.items()
            if mnemonic.split(".")[: len(wanted)] == wanted
        )


def report(kernel: Kernel) -> MachineCode:
    """Compile a kernel and read its machine code.

    A `Kernel` launches one grid, so there is one function; `report_module` is for several.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    (module,) = compile_kernels([kernel])
    found = report_module(module, kernel.architecture)
    (code,) = found.values()
    return code


def report_module(module: Any, architecture: Architecture) -> dict[str, MachineCode]:
    """Every kernel of a module that `compile_kernels` made, by name.

    Args:
        module: TVM's, for the host or for the GPU.
        architecture: what it was compiled for.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    found: dict[str, MachineCode] = {}
    if module.kind == "cuda":
        found |= report_fatbin(fatbin(module.inspect_source("cuda"), architecture.name))
    for imported in module.imports:
        found |= report_module(imported, architecture)
    return found


def report_fatbin(content: bytes) -> dict[str, MachineCode]:
    """Every kernel of a fat binary with code for one architecture, and its PTX.

    Raises:
        FewbitsError: ``bad-fatbin``, ``compiler-missing``, ``compiler-failed``.
    """
    found = entries(content)
    (elf,) = (entry for entry in found if entry.kind == "elf")
    (ptx,) = (entry for entry in found if entry.kind == "ptx")
    if elf.content is None or ptx.content is None:
        raise FewbitsError("bad-fatbin", "the GPU's code is compressed", hint="nvcc --no-compress")
    text = ptx.content.decode("utf-8")
    usage = _usage(text, elf.architecture)
    instructions = _instructions(elf)
    return {
        name: MachineCode(
            name=name, architecture=elf.architecture, instructions=instructions[name], ptx=text, **u
        )
        for name, u in usage.items()
    }


def sass(content: bytes) -> str:
    """The machine code of a fat binary as text.

    Raises:
        FewbitsError: ``bad-fatbin``, ``compiler-missing``, ``compiler-failed``.
    """
    return "\n".join(_disassemble(entry) for entry in entries(content) if entry.kind == "elf")


def _usage(ptx: str, architecture: str) -> dict[str, dict[str, int]]:
    """What ptxas says while it translates the text once more."""
    with tempfile.TemporaryDirectory(prefix="fewbits-ptxas-") as name:
        folder = Path(name)
        (folder / "kernels.ptx").write_text(ptx, encoding="utf-8")
        ptxas = find_nvcc().part("ptxas")
        command = [ptxas, "-v", f"-arch={architecture}", "-m64", "kernels.ptx", "-o", "/dev/null"]
        said = run_tool(command, folder)
    usage: dict[str, dict[str, int]] = {}
    parts = _ENTRY.split(said)
    for name, words in zip(parts[1::2], parts[2::2], strict=True):
        frame, registers, shared = (p.search(words) for p in (_FRAME, _REGISTERS, _SHARED))
        if frame is None or registers is None:
            raise FewbitsError("compiler-failed", f"ptxas says nothing of use about {name}")
        usage[name] = {
            "registers": int(registers.group(1)),
            "shared": int(shared.group(1)) if shared else 0,
            "stack": int(frame.group(1)),
            "spill": int(frame.group(2)) + int(frame.group(3)),
        }
    return usage


def _instructions(elf: Entry) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    current: Counter[str] = Counter()
    for line in _disassemble(elf).splitlines():
        section = _SECTION.match(line)
        if section:
            current = found.setdefault(section.group(1), Counter())
        elif (instruction := _INSTRUCTION.match(line)) and instruction.group(1) != "NOP":
            current[instruction.group(1)] += 1
    return found


def _disassemble(elf: Entry) -> str:
    tool = disassembler("nvdisasm")
    if tool is None:
        raise FewbitsError(
            "compiler-missing",
            "nvdisasm, which reads the GPU's machine code, is not installed",
            hint="pip install nvidia-cuda-nvdisasm",
        )
    if elf.content is None:
        raise FewbitsError("bad-fatbin", "the GPU's code is compressed", hint="nvcc --no-compress")
    with tempfile.TemporaryDirectory(prefix="fewbits-sass-") as name:
        (Path(name) / "kernels.cubin").write_bytes(elf.content)
        return run_tool([tool, "-c", "kernels.cubin"], Path(name))
