"""Quantize and dequantize equal the oracle bit for bit, on cores with and without an FPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fewbits.targets.mcu.lowering.quantize import lower_dequantize, lower_quantize
from tvm import relax


def parameters(scale: float, zero: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(scale, np.float32), np.array(zero, np.int8)


def test_quantize(target: str, tools: Mapping[str, Any]) -> None:
    rng = np.random.default_rng(1)
    ties = np.arange(-300, 300, 0.5, dtype=np.float32)
    edge = np.array([0.0, -0.0, 1e38, -1e38, np.inf, -np.inf, 1e-45, 0.49999997], np.float32)
    cases = []
    for x, scale, zero in (
        (ties, 1.0, 3), (edge, 0.1, -128), (edge, 1e-6, 127), (ties * np.float32(0.3), 0.3, -7),
        (rng.normal(0, 5, (3, 50)).astype(np.float32), 0.037, 11),
    ):  # fmt: skip
        values = (x, *parameters(scale, zero))
        cases.append(
            tools["case"](
                lambda a, s, z: relax.op.quantize(a, s, z, axis=0, out_dtype="int8"), values, (1, 2)
            )
        )
    tools["assert_exact"](lower_quantize, cases, target)


def test_dequantize(target: str, tools: Mapping[str, Any]) -> None:
    every = np.arange(-128, 128).astype(np.int8)
    cases = [
        tools["case"](
            lambda a, s, z: relax.op.dequantize(a, s, z, axis=0, out_dtype="float32"),
            (x, *parameters(scale, zero)), (1, 2),
        )
        for x, scale, zero in ((every, 0.1, -3), (every.reshape(2, 128), 3e-5, 127),
                               (every[:1], 7.0, 0))
    ]  # fmt: skip
    tools["assert_exact"](lower_dequantize, cases, target)


def test_nan_becomes_the_code_of_zero(tools: Mapping[str, Any]) -> None:
    from fewbits.targets.mcu.probe import Probe
    from fewbits.targets.mcu.target import get_target

    values = (np.array([np.nan, 1.0], np.float32), *parameters(0.5, -9))
    one = tools["case"](
        lambda a, s, z: relax.op.quantize(a, s, z, axis=0, out_dtype="int8"), values, (1, 2)
    )
    call = one.lower(lower_quantize, "cortex-m4")
    outcome = Probe([call], get_target("cortex-m4")).run(0, values[:1])
    assert outcome.outputs[0].tolist() == [-9, -7]


def test_scales_per_channel_are_left_to_the_general_route(tools: Mapping[str, Any]) -> None:
    values = (np.ones((2, 3), np.float32), np.ones(3, np.float32), np.zeros(3, np.int8))
    one = tools["case"](
        lambda a, s, z: relax.op.quantize(a, s, z, axis=1, out_dtype="int8"), values, (1, 2)
    )
    assert one.lower(lower_quantize, "c") is None
