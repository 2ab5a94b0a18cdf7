"""Executed instructions of convolution, dense and matrix product kernels, layer by layer.

The layers are those of the MLPerf Tiny networks, with random weights (the count depends on shapes
only). Run it from anywhere: ``python benchmarks/kernels_conv.py [--target cortex-m4 ...]``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

import fewbits.ops.integer  # noqa: F401 - registers the operators
import numpy as np
from fewbits.ops.registry import make_call
from fewbits.targets.mcu.lowering.conv import lower_conv2d
from fewbits.targets.mcu.lowering.dense import lower_dense
from fewbits.targets.mcu.lowering.matmul import lower_matmul
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.program import Buffer, KernelCall
from fewbits.targets.mcu.target import get_target
from rich.console import Console
from rich.table import Table
from tvm import relax

TARGETS = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "rv32imc")

# name: height, width, in, out, kernel, strides, padding (t, l, b, r)
CONVOLUTIONS: dict[str, tuple] = {
    "KWS conv 10x4 s2, 1→64": (49, 10, 1, 64, (10, 4), (2, 2), (4, 1, 5, 1)),
    "KWS pointwise 64→64": (25, 5, 64, 64, (1, 1), (1, 1), (0, 0, 0, 0)),
    "VWW conv 3x3 s2, 3→8": (96, 96, 3, 8, (3, 3), (2, 2), (0, 0, 1, 1)),
    "VWW pointwise 8→16": (48, 48, 8, 16, (1, 1), (1, 1), (0, 0, 0, 0)),
    "VWW pointwise 128→128": (6, 6, 128, 128, (1, 1), (1, 1), (0, 0, 0, 0)),
    "ResNet conv 3x3, 3→16": (32, 32, 3, 16, (3, 3), (1, 1), (1, 1, 1, 1)),
    "ResNet conv 3x3, 16→16": (32, 32, 16, 16, (3, 3), (1, 1), (1, 1, 1, 1)),
    "ResNet conv 3x3, 64→64": (8, 8, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1)),
    "ResNet conv 1x1 s2, 32→64": (16, 16, 32, 64, (1, 1), (2, 2), (0, 0, 0, 0)),
}
# name: depth, outputs, shift of the sums (0: the layer's scale is at most 1/64)
DENSE: dict[str, tuple[int, int, int]] = {
    "AD dense 640→128": (640, 128, 0),
    "AD dense 128→128": (128, 128, 0),
    "AD dense 128→128, shift 3": (128, 128, 3),
    "AD dense 128→8": (128, 8, 0),
    "AD dense 8→128": (8, 128, 0),
    "AD dense 8→128, shift 3": (8, 128, 3),
    "AD dense 128→640": (128, 640, 0),
    "KWS dense 64→12": (64, 12, 0),
}
# name: shape of a, shape of b, both run-time values
PRODUCTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "attention 4x64x32 · 32x64": ((4, 64, 32), (4, 32, 64)),
    "product 64x128 · 128x64": ((64, 128), (128, 64)),
    "vector 1x64 · 64x64": ((1, 64), (64, 64)),
}
#: CMSIS-NN on Cortex-M4, the same networks: see the README's table of figures.
CMSIS_NN_M4 = {
    "KWS conv 10x4 s2, 1→64": 1_111_183,
    "KWS pointwise 64→64": 1_068_928,
    "VWW conv 3x3 s2, 3→8": 3_063_019,
    "VWW pointwise 8→16": 1_954_936,
    "VWW pointwise 128→128": 1_079_169,
    "ResNet conv 3x3, 16→16": 5_487_500,
    "ResNet conv 3x3, 64→64": 4_155_296,
    "AD dense 640→128": 160_054,
}


def _weights(rng: np.random.Generator, outputs: int, *shape: int) -> dict[int, np.ndarray]:
    """Bell-shaped weights, as trained ones are, and constants that fit them."""
    depth = math.prod(shape)
    weight = np.clip(np.rint(rng.normal(0, 35, (outputs, *shape))), -127, 127).astype(np.int8)
    multiplier = rng.integers(2**20, int(2**32 / (40 * depth**0.5 + 64)), outputs)
    bias = rng.integers(-20_000, 20_000, outputs)
    return {1: weight, 2: bias.astype(np.int32), 3: multiplier.astype(np.int32)}


def _call(operator: str, arrays: Mapping[int, np.ndarray], **attrs: Any) -> relax.Call:
    variables = [
        relax.Var(f"v{i}", relax.TensorType(array.shape, str(array.dtype)))
        for i, array in arrays.items()
    ]
    common = {"shift": 0, "minimum": -128, "maximum": 127, "scale": 1.0, "zero_point": 0}
    return make_call(operator, variables, **common | attrs)


def calls(target: str) -> Mapping[str, KernelCall]:
    """Every layer's kernel call on a target, by name."""
    rng = np.random.default_rng(0)
    found = {}
    for name, (h, w, channels, outputs, kernel, strides, padding) in CONVOLUTIONS.items():
        top, left, bottom, right = padding
        out_h = (h + top + bottom - kernel[0]) // strides[0] + 1
        out_w = (w + left + right - kernel[1]) // strides[1] + 1
        constants = _weights(rng, outputs, *kernel, channels)
        shape = (1, h, w, channels)
        call = _call(
            "fewbits.conv2d", {0: np.empty(shape, np.int8), **constants},
            strides=strides, padding=padding, dilation=(1, 1), groups=1, input_zero=-128,
        )  # fmt: skip
        x, y = Buffer("x", shape, "int8"), Buffer("y", (1, out_h, out_w, outputs), "int8")
        found[name] = lower_conv2d(name, call, [x], y, constants, get_target(target))
    for name, (depth, outputs, shift) in DENSE.items():
        constants = _weights(rng, outputs, depth)
        arrays = {0: np.empty((1, depth), np.int8), **constants}
        call = _call("fewbits.dense", arrays, shift=shift)
        x, y = Buffer("x", (1, depth), "int8"), Buffer("y", (1, outputs), "int8")
        found[name] = lower_dense(name, call, [x], y, constants, get_target(target))
    for name, (left, right) in PRODUCTS.items():
        call = _call(
            "fewbits.matmul", {0: np.empty(left, np.int8), 1: np.empty(right, np.int8)},
            a_zero=-3, b_zero=5, bias=100, multiplier=2**20,
        )  # fmt: skip
        a, b = Buffer("a", left, "int8"), Buffer("b", right, "int8")
        y = Buffer("y", (*left[:-1], right[-1]), "int8")
        product = lower_matmul(name, call, [a, b], y, {}, get_target(target))
        assert product is not None
        found[name] = product
    return found


def measure(target: str) -> dict[str, int]:
    """Executed instructions of every layer."""
    layers = calls(target)
    probe = Probe(list(layers.values()), get_target(target))
    rng = np.random.default_rng(1)
    counts = {}
    for index, (name, call) in enumerate(layers.items()):
        inputs = [rng.integers(-128, 128, x.shape).astype(np.int8) for x in call.inputs]
        counts[name] = probe.run(index, inputs).instructions or 0
    return counts


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS)
    targets = parser.parse_args().target or TARGETS
    table = Table("layer", "MACs", "scratch", title="executed instructions (per MAC)")
    for target in targets:
        table.add_column(target, justify="right")
    table.add_column("CMSIS-NN, M4", justify="right")
    results = {target: measure(target) for target in targets}
    layers = calls(targets[0])
    for name, call in layers.items():
        cells = [f"{r[name]:,} ({r[name] / call.macs:.2f})" for r in results.values()]
        peer = CMSIS_NN_M4.get(name)
        table.add_row(
            name, f"{call.macs:,}", f"{call.scratch:,}", *cells, f"{peer:,}" if peer else ""
        )
    Console(width=40 + 24 * len(targets) + 40).print(table)


if __name__ == "__main__":
    main()
