"""Few-bit weights on a microcontroller: what the layer computes is what the oracle says.

Every format is decoded within the generated layer; nothing is expanded in flash, and of most
weights only one output channel exists at a time.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from fewbits.formats.parse import parse_format
from fewbits.formats.plain import PlainTensor
from fewbits.formats.sparsity import parse_sparsity
from fewbits.ops.compressed.activations import fake_quantize_call
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.layers import Layer, Replacement, replace_layers
from fewbits.targets.mcu.lower import lower
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.program import Constant
from fewbits.targets.mcu.target import get_target
from onnx import numpy_helper, parser

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,64] x, float[1,8,6,6] image, int32[1,5] ids)
  => (float[1,3,24] y, float[1,16,4,4] c, float[1,5,64] e)
<float[64,24] w, float[16,8,3,3] wc, float[11,64] table>
{
  y = MatMul(x, w)
  c = Conv(image, wc)
  e = Gather<axis=0>(table, ids)
}
"""

#: name: format, granularity, storage of the scales, method, sparsity.
CASES: dict[str, tuple[str, Any, str, Any, str | None]] = {
    "int2": ("int2", PerGroup(16), "float16", None, None),
    "int3": ("int3", PerGroup(8), "bfloat16", None, None),
    "int4": ("int4", PerGroup(32), "float16", None, None),
    "uint4": ("uint4", PerGroup(32), "float16", "affine", None),
    "int5": ("int5", PerChannel(0), "float32", None, None),
    "int8": ("int8-narrow", PerChannel(0), "float32", None, None),
    "tensor": ("int8", PerTensor(), "float32", None, None),
    "nf4": ("nf4", PerBlock(64), "double", None, None),
    "fp4": ("fp4_e2m1", PerGroup(32), "e8m0", None, None),
    "fp8": ("fp8_e4m3fn", PerChannel(0), "float32", None, None),
    "bcq": ("bcq3", PerGroup(32), "float32", None, None),
    "2:4": ("int4", PerGroup(32), "float16", None, "2:4"),
    "bitmap": ("int8", PerChannel(0), "float32", None, "bitmap"),
}


@functools.cache
def float_module() -> Any:
    model = parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return import_onnx(model).module


def compressed(name: str) -> Any:
    number_format, granularity, storage, method, sparse = CASES[name]

    def shrink(layer: Layer) -> Replacement:
        matrix = layer.matrix
        mask = None
        if sparse is not None:
            mask = np.tile([True, False, False, True], (len(matrix), matrix.shape[1] // 4))
        tensor = compress(
            matrix, parse_format(number_format), granularity=granularity, method=method,
            scale_storage=storage, mask=mask,
            sparsity=None if sparse is None else parse_sparsity(sparse),
        )  # fmt: skip
        return Replacement(tensor)

    return replace_layers(float_module(), shrink)


def halves() -> Any:
    """Plain float16 values, half of them 0 and some of them subnormal."""

    def shrink(layer: Layer) -> Replacement:
        matrix = layer.matrix.copy()
        matrix[:, ::2] *= 1e-5
        matrix[np.abs(matrix) > 1] = 0
        return Replacement(PlainTensor.from_array(matrix, "float16", parse_sparsity("bitmap")))

    return replace_layers(float_module(), shrink)


def rounded() -> Any:
    def shrink(layer: Layer) -> Replacement | None:
        if layer.kind == "embedding":
            return None
        weight = compress(layer.weight, parse_format("int8"), granularity=PerChannel(0))
        name = "int8-narrow" if layer.kind == "linear" else "fp8_e4m3fn"
        granularity = "token" if layer.kind == "linear" else "tensor"
        return Replacement(weight, lambda x: fake_quantize_call(x, parse_format(name), granularity))

    return replace_layers(float_module(), shrink)


MODULES = {
    **{name: functools.partial(compressed, name) for name in CASES},
    "float16": halves,
    "activations": rounded,
}


@functools.cache
def lowered() -> tuple[dict[str, tuple[Any, Any, list[int]]], Probe, list[Any]]:
    """Every case's module, program and positions of its calls; all calls in one binary."""
    target = get_target("cortex-m4")
    modules: dict[str, tuple[Any, Any, list[int]]] = {}
    calls: list[Any] = []
    for name, make in MODULES.items():
        module = make()
        program = lower(module, target, "m", {})
        modules[name] = module, program, list(range(len(calls), len(calls) + len(program.calls)))
        calls += program.calls
    return modules, Probe(calls, target), calls


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=(1, 3, 64)).astype(np.float32),
        "image": rng.normal(size=(1, 8, 6, 6)).astype(np.float32),
        "ids": np.array([[0, 3, 10, 7, 3]], np.int32),
    }


@pytest.mark.parametrize("name", MODULES)
def test_layers_compute_what_they_mean(name: str) -> None:
    modules, probe, calls = lowered()
    module, program, positions = modules[name]
    given = inputs()
    values: dict[str, np.ndarray] = dict(given)
    for position in positions:
        call = calls[position]
        outcome = probe.run(position, [values[buffer.name] for buffer in call.inputs])
        for buffer, array in zip(call.outputs, outcome.outputs, strict=True):
            values[buffer.name] = array
    wanted = Evaluator(module)({key: torch.from_numpy(value) for key, value in given.items()})
    for buffer, want in zip(program.outputs, wanted.values(), strict=True):
        np.testing.assert_allclose(
            values[buffer.name].reshape(want.shape), want.numpy(), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", CASES)
def test_weights_stay_packed(name: str) -> None:
    modules, _, calls = lowered()
    _, _, positions = modules[name]
    bits = parse_format(CASES[name][0]).bits
    elements = {"matmul": 64 * 24, "conv2d": 16 * 72, "take": 11 * 64}
    for position in positions:
        call = calls[position]
        stored = sum(a.array.nbytes for a in call.arguments if isinstance(a, Constant))
        assert stored < elements[call.operator] * (bits + 2.5) / 8 + 1024 + 64
        if name != "bitmap" and call.operator != "take":
            # One output channel at a time.
            assert call.scratch <= 4 * 4 * 72


def test_products_decode_each_weight_once() -> None:
    """A layer with few-bit weights costs little more than one with floats."""
    modules, probe, _ = lowered()
    module = float_module()
    program = lower(module, get_target("cortex-m4"), "m", {})
    floats = Probe(program.calls, get_target("cortex-m4"))
    given = inputs()
    _, _, positions = modules["int4"]
    for position, call in zip(positions, program.calls, strict=True):
        arrays = [given[buffer.name] for buffer in call.inputs]
        plain = floats.run(program.calls.index(call), arrays).instructions
        packed = probe.run(position, arrays).instructions
        assert plain is not None and packed is not None
        if call.operator == "conv2d":
            assert packed < 1.25 * plain
        elif call.operator == "matmul":  # three rows only
            assert packed < 3 * plain
