"""``y = x @ w.T`` with int8 x and w: exact int32 sums, then scales, bias and what follows.

A tile of `rows` x `panels` vectors of sums stays in registers over all of K; each step loads one
vector of weights per panel and broadcasts one word of activations per row. Panels are the outer
loop, so a panel's weights (K times a few dozen bytes) stay in the first-level cache while all rows
pass by, and weights are read from memory once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import DotProduct, broadcast, vector
from .intrinsics_emit import (
    bound,
    fill,
    index,
    kernel,
    lanes_of,
    local,
    product,
    ramp,
    store,
)
from .intrinsics_epilogue import PLAIN, Epilogue, Output
from .intrinsics_tiles import walk_tiles


@dataclasses.dataclass(frozen=True)
class Int8Linear:
    """``words [M, W], (row scales), weights, column scales, (correction), ... -> y [..., N]``.

    Attributes:
        dot: the instruction, which fixes how words and weights are packed.
        leading: sizes of y before the last; None where one is known only at run time.
        length: K.
        outputs: N.
        row_scale: ``token``: scales [M]; ``tensor``: [1]; ``none``: in the column scales.
        correction: type of the integers [padded N] to add to the sums; None: no such argument.
        epilogue: what is done to the product before it is stored.
        tile: rows and panels of a register tile.
    """

    dot: DotProduct
    leading: tuple[int | None, ...]
    length: int
    outputs: int
    row_scale: Literal["token", "tensor", "none"] = "token"
    correction: Literal["int16", "int32"] | None = None
    epilogue: Epilogue = PLAIN
    tile: tuple[int, int] = (8, 3)

    @property
    def panels(self) -> int:
        """Vectors that hold all outputs."""
        return -(-self.outputs // self.dot.lanes)

    @property
    def steps(self) -> int:
        """Words of a row that hold activations."""
        return -(-self.length // self.dot.values)

    def build(self) -> Any:
        """The PrimFunc."""
        dot, lanes = self.dot, self.dot.lanes

        def write() -> Callable[[], None]:
            sizes = bound(self.leading)
            rows = product(sizes)
            width = self.panels * lanes
            x = T.arg("x", T.buffer((rows, dot.word_count(self.length)), "int32"))
            row_scale = None
            if self.row_scale != "none":
                count = rows if self.row_scale == "token" else 1
                row_scale = T.arg("row_scale", T.buffer((count,), "float32"))
            w = T.arg("w", T.buffer((self.panels, self.steps, lanes), dot.weight_dtype))
            scale = T.arg("scale", T.buffer((width,), "float32"))
            correction = None
            if self.correction is not None:
                correction = T.arg("correction", T.buffer((width,), self.correction))
            output = Output.declare(self.epilogue, sizes, self.outputs, lanes)

            def tile(row: Any, panel: Any, height: int, panels: int) -> None:
                sums = self._sums(x, w, row, panel, height, panels)
                for j in range(panels):
                    column = (panel + j) * lanes
                    factor = T.Bind(lanes_of(scale, lanes, column))
                    offset = None
                    if correction is not None:
                        stored = lanes_of(correction, lanes, column)
                        offset = T.Bind(tirx.Cast(vector("int32", lanes), stored))
                    for i in range(height):
                        value = lanes_of(sums[i * panels + j], lanes)
                        if offset is not None:
                            value = value + offset
                        by = factor
                        if row_scale is not None:
                            at = row + i if self.row_scale == "token" else 0
                            by = factor * broadcast(row_scale[at], lanes)
                        real = tirx.Cast(vector("float32", lanes), value)
                        output.write(row + i, column, real * by)

            def body() -> None:
                output.open()
                walk_tiles(rows, self.panels, self.tile, tile)

            return body

        return kernel("int8_linear", write)

    def _sums(self, x: Any, w: Any, row: Any, panel: Any, height: int, panels: int) -> list[Any]:
        """The int32 sums of a tile, ``[height][panels]``, each a vector of its own."""
        lanes = self.dot.lanes
        sums = [local(lanes, "int32") for _ in range(height * panels)]
        for one in sums:
            fill(one, lanes, 0)
        with T.serial(index(0), index(self.steps)) as step:
            weights = [T.Bind(w[panel + j, step, ramp(0, lanes)]) for j in range(panels)]
            for i in range(height):
                word = x[row + i, step]
                for j in range(panels):
                    one = sums[i * panels + j]
                    store(one, lanes, self.dot.accumulate(lanes_of(one, lanes), word, weights[j]))
        return sums
