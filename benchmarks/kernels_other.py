"""Executed instructions of all kernels but convolution and dense, layer by layer, by target.

The layers are those of the MLPerf Tiny networks and a few more shapes, with random data. Run it
from anywhere: ``python benchmarks/kernels_other.py [--target cortex-m4 ...]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import fewbits.ops.integer  # noqa: F401 - registers the operators
import numpy as np
from fewbits.ops.integer.softmax import exponential_table
from fewbits.ops.registry import make_call
from fewbits.targets.mcu.lowering.depthwise import lower_depthwise
from fewbits.targets.mcu.lowering.elementwise import (
    lower_add,
    lower_lookup,
    lower_multiply,
    lower_softmax,
)
from fewbits.targets.mcu.lowering.movement import lower_permute_dims
from fewbits.targets.mcu.lowering.pool import lower_average_pool2d, lower_max_pool2d
from fewbits.targets.mcu.lowering.quantize import lower_dequantize, lower_quantize
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.program import Buffer, KernelCall
from fewbits.targets.mcu.target import McuTarget, get_target
from rich.console import Console
from rich.table import Table
from tvm import relax

TARGETS = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "rv32imc")

# name: height, width, channels, kernel, stride
DEPTHWISE: dict[str, tuple[int, int, int, int, int]] = {
    "KWS depthwise 3x3, 25x5x64": (25, 5, 64, 3, 1),
    "VWW depthwise 3x3, 48x48x8": (48, 48, 8, 3, 1),
    "VWW depthwise 3x3 s2, 48x48x16": (48, 48, 16, 3, 2),
    "VWW depthwise 3x3, 24x24x32": (24, 24, 32, 3, 1),
    "VWW depthwise 3x3, 12x12x64": (12, 12, 64, 3, 1),
    "VWW depthwise 3x3, 6x6x128": (6, 6, 128, 3, 1),
    "VWW depthwise 3x3 s2, 6x6x128": (6, 6, 128, 3, 2),
    "VWW depthwise 3x3, 3x3x256": (3, 3, 256, 3, 1),
    "depthwise 5x5, 12x12x32": (12, 12, 32, 5, 1),
}
#: CMSIS-NN on Cortex-M4, the same layers.
CMSIS_NN_M4 = {
    "KWS depthwise 3x3, 25x5x64": 599_615,
    "VWW depthwise 3x3, 48x48x8": 1_651_114,
    "ResNet add, 32x32x16": 1_333_689,
}
_LIMITS = {"minimum": -128, "maximum": 127}

Layer = tuple[Callable[..., KernelCall | None], Any, list[np.ndarray], tuple[int, ...], str]


def _codes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)


def _call(operator: str, arrays: list[np.ndarray], **attributes: Any) -> relax.Call:
    variables = [
        relax.Var(f"v{i}", relax.TensorType(array.shape, str(array.dtype)))
        for i, array in enumerate(arrays)
    ]
    return make_call(operator, variables, **attributes)


def _depthwise(h: int, w: int, c: int, kernel: int, stride: int) -> Layer:
    before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
    out = (1, -(-h // stride), -(-w // stride), c)
    scale, bias = np.full(c, 2**24, np.int32), np.full(c, 100, np.int32)
    arrays = [_codes(1, h, w, c), _codes(c, kernel, kernel, 1), bias, scale]
    call = _call(
        "fewbits.conv2d", arrays, strides=(stride, stride), padding=(before, before, after, after),
        dilation=(1, 1), groups=c, input_zero=-128, shift=0, **_LIMITS,
    )  # fmt: skip
    return lower_depthwise, call, arrays, out, "int8"


def _average(h: int, w: int, c: int) -> Layer:
    constants = [np.full(h * w, 2**10, np.int32), np.full(h * w, 2**25, np.int32)]
    arrays = [_codes(1, h, w, c), *constants]
    call = _call(
        "fewbits.average_pool2d", arrays, kernel=(h, w), strides=(1, 1), padding=(0, 0, 0, 0),
        dilation=(1, 1), shift=5, input_zero=0, count_include_pad=0, **_LIMITS,
    )  # fmt: skip
    return lower_average_pool2d, call, arrays, (1, 1, 1, c), "int8"


def _max(h: int, w: int, c: int, kernel: int, stride: int) -> Layer:
    arrays = [_codes(1, h, w, c)]
    call = _call(
        "fewbits.max_pool2d", arrays, kernel=(kernel, kernel), strides=(stride, stride),
        padding=(0, 0, 0, 0), dilation=(1, 1),
    )  # fmt: skip
    out = (1, (h - kernel) // stride + 1, (w - kernel) // stride + 1, c)
    return lower_max_pool2d, call, arrays, out, "int8"


def _softmax(n: int) -> Layer:
    arrays = [_codes(1, n), exponential_table(0.1)]
    call = _call("fewbits.softmax", arrays, multiplier=256, bias=-(2**23), shift=16, **_LIMITS)
    return lower_softmax, call, arrays, (1, n), "int8"


def layers() -> dict[str, Layer]:
    """Rule, call, argument values, output shape and type by name."""
    found = {name: _depthwise(*shape) for name, shape in DEPTHWISE.items()}
    image = (1, 32, 32, 16)
    pair = [_codes(*image), _codes(*image)]
    add = {"a_multiplier": 20000, "b_multiplier": 12000, "bias": 2**14, "shift": 15}
    found["ResNet add, 32x32x16"] = (
        lower_add, _call("fewbits.add", pair, **add, **_LIMITS), pair, image, "int8",
    )  # fmt: skip
    scale = {"a_zero": 3, "b_zero": -5, "bias": 2**14, "multiplier": 2**25, "shift": 0}
    gate = [_codes(*image), _codes(1, 1, 1, 16)]
    found["multiply by channel, 32x32x16"] = (
        lower_multiply, _call("fewbits.multiply", gate, **scale, **_LIMITS), gate, image, "int8",
    )  # fmt: skip
    lookup = [_codes(*image), _codes(256)]
    found["lookup, 32x32x16"] = (
        lower_lookup, _call("fewbits.lookup", lookup), lookup, image, "int8",
    )  # fmt: skip
    found["KWS average pool, 25x5x64"] = _average(25, 5, 64)
    found["ResNet average pool, 8x8x64"] = _average(8, 8, 64)
    found["VWW average pool, 3x3x256"] = _average(3, 3, 256)
    found["max pool 2x2 s2, 32x32x16"] = _max(32, 32, 16, 2, 2)
    found["KWS softmax, 12"] = _softmax(12)
    one = [_codes(1, 16, 16, 16)]
    variable = relax.Var("x", relax.TensorType(one[0].shape, "int8"))
    found["NHWC to NCHW, 16x16x16"] = (
        lower_permute_dims, relax.op.permute_dims(variable, (0, 3, 1, 2)), one, (1, 16, 16, 16),
        "int8",
    )  # fmt: skip
    real = [np.linspace(-3, 3, 490, dtype=np.float32), np.float32([0.1]), np.int8([3])]
    variables = [relax.Var(f"v{i}", relax.TensorType(a.shape, str(a.dtype))) for i, a in
                 enumerate(real)]  # fmt: skip
    found["quantize, 490"] = (
        lower_quantize, relax.op.quantize(*variables, axis=0, out_dtype="int8"), real, (490,),
        "int8",
    )  # fmt: skip
    coded = [_codes(490), *real[1:]]
    variables[0] = relax.Var("x", relax.TensorType((490,), "int8"))
    found["dequantize, 490"] = (
        lower_dequantize, relax.op.dequantize(*variables, axis=0, out_dtype="float32"), coded,
        (490,), "float32",
    )  # fmt: skip
    return found


def _lower(name: str, layer: Layer, target: McuTarget) -> KernelCall:
    rule, call, arrays, out, dtype = layer
    run_time = 2 if rule in (lower_add, lower_multiply) else 1
    inputs = [Buffer(f"in{i}", a.shape, str(a.dtype)) for i, a in enumerate(arrays[:run_time])]
    constants = {i: a for i, a in enumerate(arrays) if i >= run_time}
    lowered = rule(name, call, inputs, Buffer("out", out, dtype), constants, target)
    assert lowered is not None, name
    return lowered


def measure(target: str, found: Mapping[str, Layer]) -> tuple[dict[str, int], dict[str, int]]:
    """Executed instructions and bytes of code of every layer."""
    counts, sizes = {}, {}
    for name, layer in found.items():
        call = _lower(name, layer, get_target(target))
        probe = Probe([call], get_target(target))
        values = layer[2][: len(call.inputs)]
        counts[name] = probe.run(0, values).instructions or 0
        sizes[name] = probe.build.sizes.text
    return counts, sizes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--layer", default="", help="only layers with this text in their name")
    options = parser.parse_args()
    targets = options.target or TARGETS
    table = Table("layer", "work", title="executed instructions (per MAC or element; code bytes)")
    for target in targets:
        table.add_column(target, justify="right")
    table.add_column("CMSIS-NN, M4", justify="right")
    found = {name: layer for name, layer in layers().items() if options.layer in name}
    results = [measure(target, found) for target in targets]
    for name, layer in found.items():
        call = _lower(name, layer, get_target(targets[0]))
        work = call.macs or max(call.inputs[0].bytes, call.outputs[0].bytes)
        cells = [
            f"{counts[name]:,} ({counts[name] / work:.2f}; {sizes[name]})"
            for counts, sizes in results
        ]
        peer = CMSIS_NN_M4.get(name)
        table.add_row(name, f"{work:,}", *cells, f"{peer:,}" if peer else "")
    Console(width=60 + 28 * len(targets)).print(table)


if __name__ == "__main__":
    main()
