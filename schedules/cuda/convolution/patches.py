"""The matrix of patches that a convolution multiplies, which exists in shared memory only.

A row is a result's window, tap by tap, all channels of a tap together. Each 16 bytes of a row are
copied from wherever they are in the image; what lies around the image comes from a small array.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics.mma import COPY
from ..mma.sizes import Sizes
from ..mma.tile import swizzled
from ..parameters import held, long
from .parameters import Declared

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: A place that is in no image, and stays so whatever tap is added.
_OUTSIDE = -(1 << 30)
#: What is added for taps that the window does not have.
_BEYOND = 1 << 29


def unit(channel_bytes: int) -> int | None:
    """Bytes that are copied at a time: all of one tap. None where no copy is that small."""
    return next((size for size in (16, 8, 4) if channel_bytes % size == 0), None)


class Patches:
    """`sizes.rows` rows of patches, `sizes.depth` bytes of each at a time (see `mma.tile.Tile`)."""

    def __init__(
        self,
        shared: Any,
        declared: Declared,
        sizes: Sizes,
        *,
        first: Any,
        column: Any,
        thread: Any,
    ) -> None:
        """Find each of the thread's rows in its image.

        Args:
            shared: the block's bytes.
            declared: parameters.
            sizes: of the kernel.
            first: the tile's first row, int64.
            column: its first output channel, int64; all of the tile's are in one group.
            thread: the thread's number.
        """
        problem = declared.problem
        self.shared, self.declared, self.sizes, self.thread = shared, declared, sizes, thread
        self.chunks = sizes.depth // COPY
        self.apart = sizes.threads // self.chunks
        self.turns = -(-sizes.rows // self.apart)
        self.channels = problem.inputs // problem.groups
        size = unit(self.channels * problem.bytes)
        assert size is not None
        self.unit: int = size
        self.term = held(thread % self.chunks * (COPY // problem.bytes))
        self.height, self.width = declared.input_size()
        extents = declared.extents
        self.flat = T.decl_buffer(
            (extents.batch * extents.height * extents.width * problem.inputs,),
            problem.activation,
            data=declared.x.data,
        )
        down, across = declared.output_size()
        pixels = held(down * across)
        each = problem.outputs // problem.groups
        group = held(column // each * self.channels) if problem.groups > 1 else None
        # One division of 64 bits: the rows after the first are near.
        image = held(first // long(pixels))
        place = held(tirx.Cast("int32", first - image * long(pixels)))
        self.down = T.alloc_buffer((self.turns,), "int32", scope="local")
        self.right = T.alloc_buffer((self.turns,), "int32", scope="local")
        self.start = T.alloc_buffer((self.turns,), "int64", scope="local")
        for turn in range(self.turns):
            line = thread // self.chunks + turn * self.apart
            number = held(place + line)
            within = held(number % pixels)
            y = held(within // across * problem.strides[0] - problem.padding[0])
            x = held(within % across * problem.strides[1] - problem.padding[1])
            start = declared.pixel(image + long(number // pixels), y, x)
            if group is not None:
                start = start + group
            there = tirx.all(first + long(line) < extents.rows, line < sizes.rows)
            outside = tirx.const(_OUTSIDE, "int32")
            T.buffer_store(self.down, tirx.Select(there, y, outside), [turn])
            T.buffer_store(self.right, x, [turn])
            T.buffer_store(self.start, start, [turn])

    def place(self, row: Any, chunk: Any) -> Any:
        """The byte offset within the tile of a lane's first chunk."""
        return held(swizzled(row, chunk, self.sizes.depth))

    def copy(self, step: Any, stage: Any) -> None:
        """Begin to copy a step's bytes into a stage."""
        sizes, problem = self.sizes, self.declared.problem
        base = held(stage * sizes.stage_bytes)
        first = held(step * (sizes.depth // problem.bytes) + self.term)
        for part in range(COPY // self.unit):
            begin = first + part * (self.unit // problem.bytes)
            down, right, offset = self._tap(begin)
            for turn in range(self.turns):
                line = self.thread // self.chunks + turn * self.apart
                place = base + swizzled(line, self.thread % self.chunks, sizes.depth)
                target = T.address_of(self.shared[place + part * self.unit])
                source = T.address_of(self.flat[self.start[turn] + offset])
                y, x = self.down[turn] + down, self.right[turn] + right
                there = tirx.all(y >= 0, y < self.height, x >= 0, x < self.width)
                filling = T.address_of(self.declared.filling[0])
                if (turn + 1) * self.apart <= sizes.rows:
                    _copy(self.unit, target, source, filling, there)
                else:
                    with T.If(line < sizes.rows), T.Then():
                        _copy(self.unit, target, source, filling, there)

    def _tap(self, term: Any) -> tuple[Any, Any, Any]:
        """Where a term is: rows down, columns to the right, and elements on, from the window's."""
        problem = self.declared.problem
        tap, channel = held(term // self.channels), held(term % self.channels)
        down = held(tap // problem.kernel[1] * problem.dilation[0])
        right = held(tap % problem.kernel[1] * problem.dilation[1])
        offset = held(self.declared.pixel(tirx.const(0, "int64"), down, right) + long(channel))
        per_step = self.sizes.depth // problem.bytes
        if problem.terms % per_step:
            beyond = tirx.const(_BEYOND, "int32")
            down = held(tirx.Select(tap < problem.taps, down, beyond))
        return down, right, offset


def _copy(size: int, target: Any, source: Any, filling: Any, there: Any) -> None:
    """Begin to copy 4, 8 or 16 bytes to shared memory, from one of two places."""
    name = f"fewbits_copy{size}_or_fill"
    # Only whole lines go past the first cache; smaller pieces have neighbours in it.
    cache = "cg" if size == COPY else "ca"
    code = f"""
__device__ __forceinline__ void {name}(
    void* target, const void* source, const void* filling, bool there) {{
  unsigned address = (unsigned)__cvta_generic_to_shared(target);
  const void* from = there ? source : filling;
  asm volatile("cp.async.{cache}.shared.global [%0], [%1], {size};"
               :: "r"(address), "l"(from) : "memory");
}}
"""
    T.evaluate(cuda_func_call(name, target, source, filling, there, source_code=code))
