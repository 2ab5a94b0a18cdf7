"""Rows of x that do not begin at multiples of 16 bytes, copied 4 or 8 bytes at a time.

2:4 asks for rows of a multiple of four elements, so every such weight has a kernel. More copies are
on their way for the same bytes; what they write is where `Tile` would have written it.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics.mma import COPY
from ..mma.tile import Tile, swizzled
from ..parameters import held, long

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: The fewest bytes that an asynchronous copy moves.
FEWEST = 4


class NarrowTile(Tile):
    """`lines` lines of a matrix whose rows are a multiple of 4 bytes, `depth` bytes at a time."""

    def __init__(self, shared: Any, source: Any, kind: Any, sizes: Any, **place: Any) -> None:
        super().__init__(shared, source, kind, sizes, **place)
        self.first = place["first"]

    def copy(self, step: Any, stage: Any) -> None:
        """Begin to copy a step's bytes into a stage, 4 or 8 by each thread in each turn."""
        sizes, item = self.sizes, self.kind.bytes
        unit = 2 * FEWEST if self.length * item % (2 * FEWEST) == 0 else FEWEST
        units, per_unit = sizes.depth // unit, unit // item
        apart = sizes.threads // units
        assert apart > 0, "a step of a row has more units than the block has threads"
        base = held(stage * sizes.stage_bytes + self.offset)
        number = self.thread % units
        term = held(number * per_unit + step * (sizes.depth // item))
        first = held(long(term) + long(self.thread // units) * self.length)
        for turn in range(-(-self.lines // apart)):
            line = self.thread // units + turn * apart
            chunk = swizzled(line, number * unit // COPY, sizes.depth)
            target = T.address_of(self.shared[base + chunk + number * unit % COPY])
            place = self.first * self.length + first + turn * apart * self.length
            conditions = [term < self.length]
            if self.there is not None:
                conditions.append(line < self.there)
            with T.If(line < self.lines), T.Then():
                _copy(unit, target, T.address_of(self.flat[place]), tirx.all(*conditions))


def _copy(unit: int, target: Any, source: Any, there: Any) -> None:
    """Begin to copy so many bytes from global to shared memory, or zeros."""
    name = f"fewbits_copy{unit}_if"
    code = f"""
__device__ __forceinline__ void {name}(void* target, const void* source, bool there) {{
  unsigned address = (unsigned)__cvta_generic_to_shared(target);
  int bytes = there ? {unit} : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], {unit}, %2;"
               :: "r"(address), "l"(source), "r"(bytes) : "memory");
}}
"""
    T.evaluate(cuda_func_call(name, target, source, there, source_code=code))
