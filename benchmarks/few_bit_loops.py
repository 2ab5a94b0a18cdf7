"""Instructions per weight in the loops of few-bit kernels, counted in the machine code.

A lane of a warp issues them for every code it decodes; what a multiprocessor can issue, over this,
bounds how fast weights can stream. Nothing is run and no time is measured.
"""

from __future__ import annotations

import argparse
import re

from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_only import FewBit, Matvec
from fewbits.schedules.cuda.weight_only.stream import StreamSizes
from fewbits.targets.cuda.compile import compile_kernels, fatbin
from fewbits.targets.cuda.machine_code import sass

_LINE = re.compile(r"\s*(?:/\*[0-9a-f]{4,}\*/\s+(.*?);|(\.L_x_\d+):)")
_JUMP = re.compile(r"BRA `\((\.L_x_\d+)\)")
#: Codes that a lane decodes for one product of a tile.
_CODES = 8


def loops(text: str) -> list[list[str]]:
    """The instructions of every loop, in the order of their ends."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    found: list[list[str]] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        if match[2]:
            labels[match[2]] = len(instructions)
            continue
        instructions.append(match[1])
        jump = _JUMP.search(match[1])
        if jump and jump[1] in labels:
            found.append(instructions[labels[jump[1]] :])
    return found


def loop(text: str) -> list[str]:
    """The instructions of the last loop with products."""
    found = [body for body in loops(text) if any("HMMA" in instruction for instruction in body)]
    return found[-1] if found else []


def main() -> None:
    """Print a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "formats",
        nargs="*",
        default=[
            "int2",
            "int3",
            "int4",
            "int5",
            "int6",
            "int7",
            "int8",
            "fp8_e4m3fn",
            "fp6_e3m2",
            "fp4_e2m1",
            "nf4",
        ],
    )
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--activation", default="float16")
    parser.add_argument("--architecture", default="sm_90a", choices=list(ARCHITECTURES))
    given = parser.parse_args()
    target = ARCHITECTURES[given.architecture]
    for name in given.formats:
        layout = FewBit(name, given.group)
        problem = Linear(32768, 4096, given.activation, layout, plain("float32", given.activation))
        kernel = Matvec().build(problem, target, StreamSizes(1, 8, 1, 4), "product")
        (module,) = compile_kernels([kernel])
        device = module.imports[0] if module.imports else module
        body = loop(sass(fatbin(device.inspect_source("cuda"), target.name)))
        products = sum("HMMA" in instruction for instruction in body)
        each = len(body) / (products * _CODES) if products else float("nan")
        print(f"{name:12} {len(body):5} instructions, {products} products: {each:.2f} a weight")


if __name__ == "__main__":
    main()
