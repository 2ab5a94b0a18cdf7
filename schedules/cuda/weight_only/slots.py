"""A warp's codes in registers: asked for long before they are decoded."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics.decode import Emitted, Number
from ..parameters import Parameters, held, long
from .decoder import Decoder
from .few_bit import FewBit
from .lanes import Tile, number_of
from .planes import CHUNK, LANES, TILE, padded

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


class Source:
    """A product's weight as one lane reads it."""

    def __init__(self, parameters: Parameters, lane: Any, table: Any) -> None:
        """Nothing is read yet.

        Args:
            parameters: for the weight's arrays.
            lane: the thread's.
            table: address of the format's levels in shared memory, or None.
        """
        problem = parameters.problem
        layout: Any = problem.weight
        assert isinstance(layout, FewBit)
        self.layout = layout
        self.dtype: Number = number_of(problem.activation)
        self.lane = lane
        self.rows, columns = padded(problem.outputs, problem.inputs)
        self.chunks, self.groups = columns // CHUNK, layout.groups(problem.inputs)
        #: Groups of inputs that a chunk touches.
        self.inside = 1 if layout.group is None else max(1, CHUNK // layout.group)
        names = [array.name for array in layout.arrays(1, 1)]
        self.arrays = dict(zip(names, parameters.weight, strict=True))
        self.words = Emitted(table, constants=Decoder(layout, self.dtype).constants())

    def tile(self, number: Any) -> Any:
        """A tile's number as `Slot` takes it: beyond the last tile it is the last one."""
        return held(long(tirx.min(number, self.rows // TILE - 1)))


class Slot:
    """Registers of one chunk of one tile on its way."""

    def __init__(self, source: Source, tile: Any) -> None:
        """Registers without values.

        Args:
            source: the weight.
            tile: from `Source.tile`.
        """
        self.source, self.first = source, tile
        layout = source.layout
        self.words = [T.alloc_buffer((p.words,), "uint32", scope="local") for p in layout.planes]
        self.wide = layout.scale == "float32"
        count = source.inside
        if layout.group is not None:
            self.scales = T.alloc_buffer((count * (1 + self.wide),), "uint32", scope="local")
        if layout.zero_points:
            self.zeros = T.alloc_buffer((count,), "uint32", scope="local")

    def load(self, chunk: Any) -> None:
        """Ask for the chunk's words, scales and zero points."""
        source, layout = self.source, self.source.layout
        first = 0
        for plane, words in zip(layout.planes, self.words, strict=True):
            size = LANES * plane.words
            place = self.first * (source.chunks * size) + long(source.lane * plane.vector)
            base = T.address_of(source.arrays["codes"][place + first])
            for part in range(0, plane.words, plane.vector):
                target = [words[part + w] for w in range(plane.vector)]
                fetch(target, base, (chunk * size + part * LANES) * 4)
            first += source.rows * source.chunks * CHUNK * plane.width // 32
        group = tirx.const(0, "int32")
        if layout.group is not None:
            chunks = layout.group // CHUNK
            group = chunk // chunks if chunks else chunk * source.inside
        at = self.first * (source.groups * TILE) + long(source.lane // 4 * 2)
        for inside in range(source.inside):
            offset = (group + inside) * TILE
            if layout.group is not None:
                words = [self.scales[inside * (1 + self.wide) + i] for i in range(1 + self.wide)]
                base = T.address_of(source.arrays["scales"][at])
                fetch(words, base, offset * (4 if self.wide else 2))
            if layout.zero_points:
                _fetch_half(self.zeros[inside], T.address_of(source.arrays["zeros"][at]), offset)

    def tile(self) -> Tile:
        """The chunk, to be decoded."""
        source, layout = self.source, self.source.layout
        lane = [[w[i] for i in range(int(w.ty.shape[0]))] for w in self.words]

        def scales(group: int) -> list[Any]:
            if self.wide:
                return [T.reinterpret("float32", self.scales[2 * group + i]) for i in range(2)]
            word = self.scales[group]
            halves = [word & tirx.const(0xFFFF, "uint32"), word >> tirx.const(16, "uint32")]
            bits = [tirx.Cast("uint16", half) for half in halves]
            return [held(tirx.Cast("float32", T.reinterpret("float16", b))) for b in bits]

        def zeros(group: int) -> list[Any]:
            both = self.zeros[group]
            return [both & tirx.const(255, "uint32"), both >> tirx.const(8, "uint32")]

        return Tile(layout, source.dtype, lane, scales, zeros, source.words)


def fetch(words: list[Any], base: Any, offset: Any) -> None:
    """Read one, two or four words that nobody reads again, past the first cache.

    The base hardly changes and the offset, in bytes, has 32 bits: that is one addition.
    """
    count = len(words)
    name = f"fewbits_fetch_{count}"
    results = ", ".join(f"unsigned& d{i}" for i in range(count))
    outputs = ", ".join(f'"=r"(d{i})' for i in range(count))
    places = ", ".join(f"%{i}" for i in range(count))
    vector = {1: "", 2: ".v2", 4: ".v4"}[count]
    registers = f"{{{places}}}" if count > 1 else places
    code = f"""
__device__ __forceinline__ void {name}({results}, const void* base, int offset) {{
  asm volatile("ld.global.nc.L1::no_allocate{vector}.u32 {registers}, [%{count}];"
               : {outputs} : "l"((const char*)base + offset));
}}
"""
    T.evaluate(cuda_func_call(name, *words, base, offset, source_code=code))


def _fetch_half(word: Any, base: Any, offset: Any) -> None:
    """Read two bytes as a word."""
    code = """
__device__ __forceinline__ void fewbits_fetch_half(unsigned& d, const void* base, int offset) {
  d = __ldg((const unsigned short*)((const char*)base + offset));
}
"""
    T.evaluate(cuda_func_call("fewbits_fetch_half", word, base, offset, source_code=code))
