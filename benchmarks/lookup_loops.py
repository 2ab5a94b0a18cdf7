"""Instructions per weight of binary-coded products: look-ups against decoding, in the machine code.

For every weight of its share a lane issues them; what a multiprocessor can issue, over this, bounds
how fast weights can stream. Beside all instructions stand those that go through shared memory, of
which fewer can be issued. Nothing is run and no time is measured.
``python benchmarks/lookup_loops.py [--bits 2 3] [--architecture sm_80]``.
"""

from __future__ import annotations

import argparse
from typing import Any

from few_bit_loops import loops
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.lookup import BinaryCoded, DecodeBinary, Lut
from fewbits.schedules.cuda.lookup.sizes import LutSizes, MatrixSizes
from fewbits.schedules.cuda.problem import Linear
from fewbits.targets.cuda.compile import compile_kernels, fatbin
from fewbits.targets.cuda.machine_code import sass

#: Weights that a lane decodes for one product of a tile.
_CODES = 8
#: Outputs of a vector, and inputs of a table.
_OUTPUTS, _INPUTS = 4, 8
_SHARED = ("LDS", "STS", "SHFL", "LDSM")


def body(template: Any, problem: Linear, architecture: str, sizes: Any, marker: str) -> list[str]:
    """The shortest loop with as many of an instruction as the longest one has."""
    target = ARCHITECTURES[architecture]
    (module,) = compile_kernels([template.build(problem, target, sizes, "product")])
    device = module.imports[0] if module.imports else module
    found = loops(sass(fatbin(device.inspect_source("cuda"), target.name)))
    counts = [sum(marker in instruction for instruction in one) for one in found]
    best = [one for one, count in zip(found, counts, strict=True) if count >= max(counts) * 3 / 4]
    return min(best, key=len)


def main() -> None:
    """Print two lines for each number of planes and rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--architecture", default="sm_90a", choices=list(ARCHITECTURES))
    given = parser.parse_args()
    # Blocks with many outputs: what making tables costs is not in the loop.
    choices = [LutSizes(rows, tables, 32, 8) for rows, tables in ((1, 2), (1, 4), (2, 2), (4, 1))]
    for bits in given.bits:
        layout = BinaryCoded(bits, given.group)
        problem = Linear(8192, 8192, "float16", layout, plain("float32", "float16"))
        decode = body(DecodeBinary(), problem, given.architecture, MatrixSizes(8, 1, 4), "HMMA")
        products = sum("HMMA" in instruction for instruction in decode)
        say(bits, "decode, up to 8 rows", decode, products * _CODES)
        for sizes in choices:
            if sizes.shared_bytes > ARCHITECTURES[given.architecture].shared_memory:
                continue
            lookup = body(Lut(), problem, given.architecture, sizes, "LDS")
            weights = sizes.places * _OUTPUTS * _INPUTS * sizes.tables
            rows = f"{sizes.rows} row{'s' if sizes.rows > 1 else ''}"
            say(bits, f"lookup, {rows}, {sizes.tables} tables", lookup, weights)


def say(bits: int, what: str, found: list[str], weights: int) -> None:
    """A line."""
    shared = sum(any(name in instruction for name in _SHARED) for instruction in found)
    print(
        f"bcq{bits} {what:24} {len(found):5} instructions for {weights:4} weights: "
        f"{len(found) / weights:.2f} a weight, {shared / weights:.2f} through shared memory",
        flush=True,
    )


if __name__ == "__main__":
    main()
