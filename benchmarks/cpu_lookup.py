"""Look-ups against decoding, for binary-coded weights at few rows on this processor.

Both kernels read the same packed weight and take turns; the smallest of many times counts, and what
is said is their ratio. ``python benchmarks/cpu_lookup.py [--bits 2 3] [--rows 1 4]``.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def kernels(
    bits: int, rows: int, shape: tuple[int, int], group: int, mcpu: str
) -> tuple[dict[str, Callable[[], None]], Callable[[str], np.ndarray], np.ndarray]:
    """Runs of both kernels, what each gave last, and the exact product."""
    import tvm
    from fewbits.formats.compressed import CompressedTensor
    from fewbits.formats.granularity import PerGroup
    from fewbits.formats.parse import parse_format
    from fewbits.formats.scales import store_scales
    from fewbits.schedules.cpu.intrinsics_lookup import Lookup
    from fewbits.schedules.cpu.intrinsics_tiles import choose_tile
    from fewbits.schedules.cpu.machine import Machine
    from fewbits.schedules.cpu.weight_only_decode import PlaneDecoder
    from fewbits.schedules.cpu.weight_only_layout import into_panels, pack_planes
    from fewbits.schedules.cpu.weight_only_linear import WeightOnlyLinear
    from fewbits.schedules.cpu.weight_only_scales import GroupScales

    outputs, length = shape
    random = np.random.default_rng(0)
    # What matters for time is not what the weights are.
    codes = random.integers(0, 1 << bits, shape).astype(np.uint8)
    granularity = PerGroup(group)
    scale_shape = (*granularity.scale_shape(shape), bits)
    scales = random.random(scale_shape).astype(np.float16)
    tensor = CompressedTensor.from_codes(
        codes, parse_format(f"bcq{bits}"), granularity, store_scales(scales, "float16")
    )
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu})
    machine = Machine.of(target)
    lanes = machine.lanes
    groups = scale_shape[1]
    plan = WeightOnlyLinear(
        lanes,
        (rows,),
        length,
        outputs,
        group,
        PlaneDecoder(bits),
        GroupScales("float16", groups, planes=bits),
        tile=choose_tile(machine.registers, -(-outputs // lanes)),
    )
    x = random.standard_normal((rows, length)).astype(np.float32)
    packed = [
        pack_planes(codes, bits, lanes),
        into_panels(scales.reshape(outputs, groups * bits), lanes),
    ]
    runs: dict[str, Callable[[], None]] = {}
    results: dict[str, Any] = {}
    for name, lookup in (("decode", None), ("lookup", Lookup.of(target, lanes))):
        function = dataclasses.replace(plan, lookup=lookup).build()
        module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
        compiled = tvm.compile(module, target=target)["kernel"]
        y = tvm.runtime.tensor(np.zeros((rows, outputs), np.float32))
        arguments = [tvm.runtime.tensor(array) for array in (x, *packed)]
        results[name] = y
        runs[name] = lambda compiled=compiled, arguments=arguments, y=y: compiled(*arguments, y)
    exact = x.astype(np.float64) @ tensor.decode().astype(np.float64).T
    return runs, lambda name: results[name].numpy(), exact


def main() -> None:
    """Print a line for each number of planes and rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--outputs", type=int, default=4096)
    parser.add_argument("--inputs", type=int, default=4096)
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--mcpu", help="LLVM's name of the processor; default: this one")
    given = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = "1"
    from tvm.target import codegen

    mcpu = given.mcpu or str(codegen.llvm_get_system_cpu())
    shape = given.outputs, given.inputs
    for bits in given.bits:
        for rows in given.rows:
            runs, result, exact = kernels(bits, rows, shape, given.group, mcpu)
            best = dict.fromkeys(runs, float("inf"))
            for _ in range(given.repeat):
                for name, run in runs.items():
                    begin = time.perf_counter()
                    run()
                    best[name] = min(best[name], time.perf_counter() - begin)
            errors = [np.abs(result(name) - exact).max() / np.abs(exact).max() for name in runs]
            print(
                f"bcq{bits}, {rows} rows: decode {best['decode'] * 1e6:.0f} us, "
                f"lookup {best['lookup'] * 1e6:.0f} us: {best['decode'] / best['lookup']:.2f} times"
                f" as fast; errors {errors[0]:.1e}, {errors[1]:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
