"""What ptxas makes of the kernels for Hopper: a random part of each product's space of sizes.

    python benchmarks/hopper_code.py [--points 20] [--seed 0] [--inputs 8192] [--outputs 8192]

For every kernel: registers, bytes of stack and spilled, instructions, and what ptxas remarks about
performance (C7508: setmaxnreg ignored; C7510: products serialized; C7519: a fence added). No GPU is
needed, and nothing here says how fast a kernel is.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from pathlib import Path

from fewbits.schedules.cuda.architecture import SM_90A
from fewbits.schedules.cuda.epilogue import plain, scaled
from fewbits.schedules.cuda.hopper import Wgmma
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.machine_code import report
from fewbits.targets.cuda.toolchain import find_nvcc, run_tool

TYPES = ("int8", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16")


def main() -> None:
    """Print one line for each kernel and a count of those with a flaw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--points", type=int, default=20, help="kernels of each type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=8192)
    parser.add_argument("--outputs", type=int, default=8192)
    arguments = parser.parse_args()
    chosen = random.Random(arguments.seed)
    template = Wgmma()
    flawed = total = 0
    for dtype in TYPES:
        epilogue = scaled("float16") if dtype == "int8" else plain("float32", "float16")
        problem = Linear(arguments.inputs, arguments.outputs, dtype, Dense(dtype), epilogue)
        space = list(template.space(problem, SM_90A))
        print(f"{dtype}: {len(space)} choices of sizes")
        for sizes in chosen.sample(space, min(arguments.points, len(space))):
            kernel = template.build(problem, SM_90A, sizes, "product")
            code = report(kernel)
            remarks = _remarks(code.ptx)
            count = code.count(str(kernel.instruction))
            flaw = bool(code.stack or code.spill or remarks or not count)
            flawed, total = flawed + flaw, total + 1
            print(
                f"  {'FLAW' if flaw else 'ok':4} {code.registers:3} registers "
                f"{code.stack:3} stack {code.spill:3} spilled {count:2} {kernel.instruction} "
                f"{sum(code.instructions.values()):5} instructions {remarks or ''} {sizes}"
            )
    print(f"{flawed} of {total} kernels have a flaw")


def _remarks(ptx: str) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "kernel.ptx").write_text(ptx, encoding="utf-8")
        words = ["-arch=sm_90a", "-v", "-o", "kernel.cubin", "kernel.ptx"]
        return re.findall(
            r"\((C75\d\d)\)", run_tool([find_nvcc().part("ptxas"), *words], Path(name))
        )


if __name__ == "__main__":
    main()
