"""Arrays that kernels are called with, and what they have to give.

Data are random: zeros make GPUs faster, because less current flows. References are computed in
float64, which holds every sum of products of bytes exactly.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from .cases import Product

#: Rows at both ends of a result that are compared.
SAMPLED = 32
#: Errors of a product's sums as a share of the sum of magnitudes, by what is multiplied. Few-bit
#: weights are rounded to float16 when they are scaled; tensor cores add FP8 products with few bits.
SHARE = {"float8_e4m3fn": 2.0**-9, "float8_e5m2": 2.0**-9, "float16": 2.0**-10}
#: Half a unit in the last place of the result.
ROUNDING = 2.0**-11


@dataclasses.dataclass(frozen=True, eq=False)
class Arguments:
    """A product's operands.

    Attributes:
        x: [M, K].
        weight: the stored weight's arrays.
        operands: the epilogue's: scales by row, by column.
        y: [M, N], filled with NaN.
        decoded: of the weight, [N, K] or [period, K]: what codes mean.
        factors: [N], what decoded outputs are multiplied by where only a period is there.
    """

    x: np.ndarray
    weight: tuple[np.ndarray, ...]
    operands: tuple[np.ndarray, ...]
    y: np.ndarray
    decoded: np.ndarray
    factors: np.ndarray | None

    def all(self) -> list[np.ndarray]:
        """In the order of the kernel's parameters."""
        return [self.x, *self.weight, *self.operands, self.y]

    @property
    def bytes(self) -> int:
        """What has to be read and written at least."""
        return sum(array.nbytes for array in self.all())


def arguments(case: Product, entry: dict[str, Any], folder: Path) -> Arguments:
    """Random operands of a case.

    Args:
        case: the product.
        entry: its part of the plan.
        folder: of the plan.
    """
    generator = np.random.default_rng(1)
    x = drawn(generator, (case.rows, case.inputs), case.activation)
    lengths = {"row": case.rows, "column": case.outputs, "one": 1}
    operands = tuple(
        generator.uniform(0.5, 1.5, lengths[extends]).astype(dtype) / np.float32(case.inputs)
        for extends, dtype in entry["operands"]
    )
    y = np.full((case.rows, case.outputs), np.nan, np.float16)
    if "tile" not in entry:
        weight = drawn(generator, (case.outputs, case.inputs), case.weight)
        return Arguments(x, (weight,), operands, y, weight, None)
    stored = np.load(folder / entry["tile"]["file"])
    times = case.outputs // entry["tile"]["period"]
    factors = generator.uniform(0.5, 1.5, case.outputs).astype(np.float32) / np.float32(case.inputs)
    arrays = []
    for array in entry["arrays"]:
        pieces = np.split(
            stored[array["name"]], np.cumsum(entry["tile"]["segments"][array["name"]])[:-1]
        )
        whole = np.concatenate([np.tile(piece, times) for piece in pieces])
        if array["name"] == "factors":
            whole = whole * factors
        elif array["name"] == "table":
            whole = stored["table"]
        if whole.shape != tuple(array["shape"]):
            raise ValueError(f"{array['name']} is {whole.shape}, not {array['shape']}")
        arrays.append(whole)
    return Arguments(x, tuple(arrays), operands, y, stored["decoded"], factors)


def drawn(generator: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random numbers: all bytes but -128, or normal ones."""
    if dtype == "int8":
        return generator.integers(-127, 128, shape, np.int8)
    values = generator.standard_normal(shape, np.float32)
    return values.astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))


def disagreement(case: Product, given: Arguments, result: np.ndarray, device: str) -> str | None:
    """Why a result is wrong, or None where it is right.

    Rows at both ends are compared, all outputs of each. Integer sums, scaled in float32 and rounded
    to float16, must be equal; else the bound is `SHARE` of the sum of magnitudes, and `ROUNDING`.

    Args:
        case: the product.
        given: what the kernel was called with.
        result: [M, N] float16.
        device: where torch computes the reference: ``cuda`` or ``cpu``.
    """
    import torch

    rows = np.unique(np.r_[: min(SAMPLED, case.rows), max(0, case.rows - SAMPLED) : case.rows])
    x = torch.from_numpy(given.x[rows].astype(np.float32)).to(device, torch.float64)
    decoded = torch.from_numpy(given.decoded.astype(np.float32)).to(device, torch.float64)
    sums, magnitudes = (x @ decoded.T).cpu().numpy(), (x.abs() @ decoded.abs().T).cpu().numpy()
    got = result[rows].astype(np.float64)
    if given.factors is not None:
        times = case.outputs // decoded.shape[0]
        factors = given.factors.astype(np.float64)
        sums, magnitudes = (np.tile(v, (1, times)) * factors for v in (sums, magnitudes))
    else:
        row, column = given.operands
        if case.check == "exact":
            # The kernel's own order of float32 operations: every one of them is rounded the same.
            want = sums.astype(np.float32) * row[rows, None] * column[None]
            wrong = int((want.astype(np.float16) != result[rows]).sum())
            return f"{wrong} of {got.size} sampled results differ" if wrong else None
        scales = row[rows, None].astype(np.float64) * column[None]
        sums, magnitudes = sums * scales, magnitudes * scales
    smallest = float(np.finfo(np.float16).smallest_subnormal)
    bound = SHARE[case.activation] * magnitudes + ROUNDING * np.abs(sums) + smallest
    excess = np.abs(got - sums) / bound
    if np.isfinite(excess).all() and excess.max() <= 1:
        return None
    return f"a result is {excess.max():.3g} times the bound from float64"
