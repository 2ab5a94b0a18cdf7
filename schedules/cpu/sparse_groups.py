"""``y = x @ w.T`` with n of every m neighbours of w stored: the others cost neither bits nor time.

Outputs are lanes, and each lane's places differ; but all lie in the same m values of x, which one
register holds, so a permutation with the places as indices gives every lane its own factor. A
stored value then costs a permutation and a multiplication; at 2:4 half of the dense product's
multiplications. Values are decoded as in the weight-only kernels, places are streams of bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import broadcast, multiply_add, pure_call, vector
from .intrinsics_emit import (
    bound,
    fill,
    flat,
    index,
    kernel,
    lanes_of,
    local,
    product,
    ramp,
    store,
)
from .intrinsics_epilogue import PLAIN, Epilogue, Output
from .intrinsics_lookup import Kind
from .intrinsics_tiles import walk_tiles
from .weight_only_decode import Decoder, stream_code
from .weight_only_layout import words_of
from .weight_only_scales import GroupScales
from .weight_only_walk import WeightStream

#: The widest group that a permutation reaches.
_REACH = {"permute16": 16, "permute8": 8, "bytes": 4, "memory": 0}


def reaches(kind: Kind, m: int) -> bool:
    """Whether a processor can permute within groups of `m` values."""
    return m <= _REACH[kind] and m & (m - 1) == 0


@dataclasses.dataclass(frozen=True)
class SparseGroups:
    """``x [..., K], words, places, (table), scales ..., (bias), (addend) -> y [..., N]``.

    Attributes:
        permute: the processor's permutation.
        lanes: outputs in a panel.
        leading: sizes of x before the last; None where one is known only at run time.
        length: K, which m divides.
        outputs: N.
        n, m: stored values of every so many.
        group: stored values that share a scale; at least all of a row's: all.
        decoder: of the stored values.
        scales: the groups' scales and zero points.
        epilogue: what is done to the product before it is stored.
        tile: rows and panels of a register tile.
    """

    permute: Kind
    lanes: int
    leading: tuple[int | None, ...]
    length: int
    outputs: int
    n: int
    m: int
    group: int
    decoder: Decoder
    scales: GroupScales
    epilogue: Epilogue = PLAIN
    tile: tuple[int, int] = (8, 3)

    @property
    def panels(self) -> int:
        """Vectors that hold all outputs."""
        return -(-self.outputs // self.lanes)

    @property
    def stored(self) -> int:
        """Stored values of a row."""
        return self.length // self.m * self.n

    @property
    def place_bits(self) -> int:
        """Bits of a place."""
        return (self.m - 1).bit_length()

    def build(self) -> Any:
        """The PrimFunc."""
        lanes, panels, decoder = self.lanes, self.panels, self.decoder

        def write() -> Callable[[], None]:
            sizes = bound(self.leading)
            rows = product(sizes)
            x = T.arg("x", T.buffer((*sizes, index(self.length)), "float32"))
            words = T.buffer((panels, decoder.words(self.stored), lanes), decoder.dtype)
            words = T.arg("words", words)
            shape = (panels, words_of(self.stored, self.place_bits), lanes)
            places = T.arg("places", T.buffer(shape, "int32"))
            table = None
            if decoder.entries:
                table = T.arg("table", T.buffer((decoder.entries,), "float32"))
            arguments = self.scales.declare(panels, lanes)
            output = Output.declare(self.epilogue, sizes, self.outputs, lanes)

            def body() -> None:
                output.open()
                values = flat(x, product([rows, index(self.length)]))
                weights = WeightStream(
                    lanes, self.stored, self.group, decoder, self.scales, words, table, arguments
                )

                def tile(row: Any, panel: Any, height: int, width: int) -> None:
                    self._tile(weights, values, places, output, row, panel, height, width)

                walk_tiles(rows, panels, self.tile, tile)

            return body

        return kernel("sparse_groups_linear", write)

    def _tile(
        self, weights: WeightStream, x: Any, places: Any, output: Output,
        row: Any, panel: Any, height: int, width: int,
    ) -> None:  # fmt: skip
        lanes, bits = self.lanes, self.place_bits
        length = words_of(self.stored, bits)
        panels = [T.Bind(panel + j) for j in range(width)]
        sums = [local(lanes, "float32") for _ in range(height * width)]
        for one in sums:
            fill(one, lanes, 0.0)

        def use(number: int, place: Any, code: int, value: Any, group: Any) -> None:
            del code
            scaled = value if group.scale is None else value * group.scale
            weight = T.Bind(scaled)
            # High bits are arbitrary; permutations look at the lowest alone.
            at = T.Bind(stream_code(places, panels[number], place, bits, length, lanes))
            for i in range(height):
                start = (row + i) * self.length + place // self.n * self.m
                factor = self._pick(x, start, at)
                one = sums[i * width + number]
                store(one, lanes, multiply_add(factor, weight, lanes_of(one, lanes), lanes))

        weights.walk(panels, index(0), index(0), self.stored, use, lambda opened: None)
        for i in range(height):
            for j, each in enumerate(panels):
                output.write(row + i, each * lanes, lanes_of(sums[i * width + j], lanes))

    def _pick(self, x: Any, start: Any, places: Any) -> Any:
        """Each lane's own of the m values from `start` on."""
        reals = vector("float32", self.lanes)
        width = {"permute16": 16, "permute8": 8, "bytes": 4}[self.permute]
        group = x[ramp(start, self.m)]
        repeated = group
        if self.m < width:
            order = [tirx.const(i, "int32") for i in range(width)]
            repeated = tirx.Shuffle([group] * (width // self.m), order)
        if self.permute == "permute16":
            return pure_call(reals, "llvm.x86.avx512.permvar.sf.512", repeated, places)
        if self.permute == "permute8":
            return pure_call(reals, "llvm.x86.avx2.permps", repeated, places)
        kept = tirx.bitwise_and(places, broadcast(tirx.const(self.m - 1, "int32"), 4))
        spread = kept * broadcast(tirx.const(0x04040404, "int32"), 4)
        bytes_ = tirx.reinterpret("int8x16", spread + broadcast(tirx.const(0x03020100, "int32"), 4))
        table = tirx.reinterpret("int8x16", repeated)
        found = pure_call("int8x16", "llvm.aarch64.neon.tbl1", table, bytes_)
        return tirx.reinterpret(reals, found)
