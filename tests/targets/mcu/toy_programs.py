"""Small programs over the kernels in ``toy/``, with what they must compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fewbits.targets.mcu.program import Buffer, Constant, KernelCall, Program, Scratch

TOY = Path(__file__).parent / "toy"


def int8(name: str, *shape: int) -> Buffer:
    return Buffer(name, shape, "int8", scale=0.125, zero_point=-3)


def dense(
    layer: str, x: Buffer, y: Buffer, weights: np.ndarray, bias: np.ndarray, shift: int = 4
) -> KernelCall:
    outputs, inputs = weights.shape
    return KernelCall(
        layer=layer,
        operator="dense",
        function="toy_dense",
        header="toy_dense.h",
        arguments=(
            x,
            y,
            Constant("weights", weights),
            Constant("bias", bias),
            Scratch(),
            inputs,
            outputs,
            shift,
        ),
        inputs=(x,),
        outputs=(y,),
        scratch=4 * outputs,
        overlap=(0,),
        macs=weights.size,
    )


def dense_meaning(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray, shift: int = 4
) -> np.ndarray:
    sums = weights.astype(np.int64) @ x.astype(np.int64) + bias
    return np.clip(sums >> shift, -128, 127).astype(np.int8)


def add(layer: str, a: Buffer, b: Buffer, y: Buffer, offset: int = 0) -> KernelCall:
    return KernelCall(
        layer=layer,
        operator="add",
        function="toy_add",
        header="toy_pointwise.h",
        arguments=(a, b, y, y.bytes, offset),
        inputs=(a, b),
        outputs=(y,),
        overlap=(0, 0),
    )


class Residual:
    """dense, reshape, dense, add of both, with shared and extreme constants."""

    def __init__(self, name: str = "residual", names: tuple[str, ...] = ()) -> None:
        generator = np.random.default_rng(7)
        self.weights = generator.integers(-127, 128, (8, 12)).astype(np.int8)
        self.square = generator.integers(-127, 128, (8, 8)).astype(np.int8)
        self.bias = generator.integers(-900, 900, 8).astype(np.int32)
        x, h, flat, g, y = names or ("input", "dense1", "dense1:flat", "dense2", "add")
        self.x, self.h, self.flat = int8(x, 3, 4), int8(h, 2, 4), int8(flat, 8)
        self.g, self.y = int8(g, 8), int8(y, 8)
        self.program = Program(
            name=name,
            inputs=(self.x,),
            outputs=(self.y,),
            calls=(
                dense(h, self.x, self.h, self.weights, self.bias),
                dense(g, self.flat, self.g, self.square, self.bias.copy()),
                add(y, self.flat, self.g, self.y, offset=-2),
            ),
            aliases={flat: self.h},
        )

    def meaning(self, x: np.ndarray) -> np.ndarray:
        h = dense_meaning(x.reshape(-1), self.weights, self.bias)
        g = dense_meaning(h, self.square, self.bias)
        return np.clip(h.astype(np.int32) + g - 2, -128, 127).astype(np.int8)

    def samples(self, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        x = np.random.default_rng(3).integers(-128, 128, (count, 3, 4)).astype(np.int8)
        return [x], [np.stack([self.meaning(one) for one in x])]
