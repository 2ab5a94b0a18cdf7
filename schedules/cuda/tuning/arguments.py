"""What a product's kernel is measured with: recipes for arrays like those of a model.

Contents decide nothing about speed but by NaN and by how many bits flip; they have to tell right
results from wrong ones. So sums and scales are of sizes that neither vanish nor overflow float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....formats.parse import parse_format
from ..epilogue import Operand
from ..parameters import operand_shape
from ..problem import Linear
from ..weight_format import Array, Dense
from ..weight_only.few_bit import FewBit
from ..weight_only.planes import CHUNK, TILE, pack_plane, padded
from .measuring.plan import Argument

#: Standard deviations of what activations and dense weights hold.
_INTEGER, _FLOAT = 73.0, 0.577
_INTEGERS = {"kind": "integers", "low": -127, "high": 127}
_FLOATS = {"kind": "uniform", "low": -1.0, "high": 1.0}


def has_recipe(problem: Linear) -> bool:
    """Whether the weight's layout is one of those that are made up here; else it needs files."""
    return isinstance(problem.weight, Dense | FewBit)


def arguments(problem: Linear, rows: int, files: Sequence[str] = ()) -> tuple[Argument, ...]:
    """x, the weight's arrays, the epilogue's operands, and y.

    Args:
        problem: the product.
        rows: of x.
        files: with the bytes of the weight's arrays, where there is no recipe for its layout.
    """
    fill = _INTEGERS if problem.activation == "int8" else _FLOATS
    found = [Argument((rows, problem.inputs), problem.activation, fill)]
    for place, array in enumerate(problem.weight.arrays(problem.outputs, problem.inputs)):
        if has_recipe(problem):
            contents = _weight(problem, array)
        else:
            contents = {"kind": "file", "name": files[place]}
        found.append(Argument(array.shape, array.dtype, contents))
    size = (_INTEGER if problem.activation == "int8" else _FLOAT) ** 2 * problem.inputs**0.5
    for operand in problem.epilogue.operands:
        shape = operand_shape(operand, rows, problem.outputs)
        found.append(Argument(shape, operand.dtype, _operand(operand, size)))
    result = (rows, problem.outputs), problem.epilogue.dtype, {"kind": "result"}
    return (*found, Argument(*result))


def tolerance(problem: Linear) -> float:
    """How far two right kernels' results may be apart, as a share of the largest.

    Integers are the same in any order of sums. Sums in float32 are not, and what follows them
    rounds to the result's type: half of the last place here, and half of it there.
    """
    exact = problem.accumulator == "int32"
    dtype = problem.epilogue.dtype
    if "int" in dtype:
        return 0.0 if exact else 1.5 / 127
    last = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 1e-6 if exact else 1e-4}
    return last.get(dtype, 2.0**-2)


def _operand(operand: Operand, size: float) -> dict[str, Any]:
    """Scales bring sums to about 1, one for the row and one for the column; integers may be any."""
    if "int" in operand.dtype:
        bits = 7 if operand.dtype.endswith("int8") else 30
        return {"kind": "magnitudes", "bits": bits}
    if operand.extends == "matrix":
        return dict(_FLOATS)
    scale = size**-0.5
    return {"kind": "uniform", "low": 0.5 * scale, "high": 1.5 * scale}


def _weight(problem: Linear, array: Array) -> dict[str, Any]:
    layout = problem.weight
    if isinstance(layout, Dense):
        return _INTEGERS if layout.dtype == "int8" else _FLOATS
    assert isinstance(layout, FewBit)
    if array.name == "codes":
        return _codes(layout, problem)
    if array.name == "zeros":
        return {"kind": "integers", "low": 0, "high": (1 << layout.bits) - 1}
    if array.name == "table":
        return {"kind": "exactly", "values": [float(value) for value in layout.levels()[0]]}
    if array.name == "scales":
        return {"kind": "uniform", "low": 0.5, "high": 1.0}
    levels = layout.levels()[0]
    largest = float(np.abs(levels[np.isfinite(levels)]).max())
    return {"kind": "uniform", "low": 0.5 / largest, "high": 1.5 / largest}


def _codes(layout: FewBit, problem: Linear) -> dict[str, Any]:
    """Any bits, but where some codes are no numbers: then the same tile again and again."""
    allowed = np.flatnonzero(np.isfinite(parse_format(layout.number_format).values()))
    if len(allowed) == 1 << layout.bits:
        return {"kind": "bits"}
    tile = np.random.default_rng(0).choice(allowed, (TILE, CHUNK)).astype(np.uint8)
    rows, columns = padded(problem.outputs, problem.inputs)
    pieces = [[int(word) for word in pack_plane(plane, tile)] for plane in layout.planes]
    return {"kind": "repeat", "pieces": pieces, "times": rows * columns // tile.size}
