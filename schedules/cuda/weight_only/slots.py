"""A warp's codes in registers: asked for long before they are decoded."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics.decode import Number
from ..parameters import Parameters, held, long
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
        self.lane, self.table = lane, table
        self.rows, columns = padded(problem.outputs, problem.inputs)
        self.chunks, self.groups = columns // CHUNK, layout.groups(problem.inputs)
        #: Groups of inputs that a chunk touches.
        self.inside = 1 if layout.group is None else max(1, CHUNK // layout.group)
        names = [array.name for array in layout.arrays(1, 1)]
        self.arrays = dict(zip(names, parameters.weight, strict=True))

    def tile(self, number: Any) -> Any:
        """A tile's number as `Slot` takes it: beyond the last tile it is the last one."""
        return held(long(tirx.min(number, self.rows // TILE - 1)))


class Slot:
    """Registers of one chunk of one tile on its way."""

    def __init__(self, source: Source, tile: Any) -> None:
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
        at = held(self.first * source.chunks + long(chunk))
        first = 0
        for plane, words in zip(layout.planes, self.words, strict=True):
            for part in range(0, plane.words, plane.vector):
                offset = first + part * LANES
                place = at * (LANES * plane.words) + offset + long(source.lane * plane.vector)
                address = T.address_of(source.arrays["codes"][place])
                _fetch([words[part + w] for w in range(plane.vector)], address)
            first += source.rows * source.chunks * CHUNK * plane.width // 32
        group = tirx.const(0, "int32")
        if layout.group is not None:
            chunks = layout.group // CHUNK
            group = chunk // chunks if chunks else chunk * source.inside
        at = held((self.first * source.groups + long(group)) * TILE + long(source.lane // 4 * 2))
        for inside in range(source.inside):
            if layout.group is not None:
                words = [self.scales[inside * (1 + self.wide) + i] for i in range(1 + self.wide)]
                _fetch(words, T.address_of(source.arrays["scales"][at + inside * TILE]))
            if layout.zero_points:
                address = T.address_of(source.arrays["zeros"][at + inside * TILE])
                _fetch_half(self.zeros[inside], address)

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

        return Tile(layout, source.dtype, lane, scales, zeros, source.table)


def _fetch(words: list[Any], address: Any) -> None:
    """Read one, two or four words that nobody reads again, past the first cache."""
    count = len(words)
    name = f"fewbits_fetch_{count}"
    results = ", ".join(f"unsigned& d{i}" for i in range(count))
    outputs = ", ".join(f'"=r"(d{i})' for i in range(count))
    places = ", ".join(f"%{i}" for i in range(count))
    vector = {1: "", 2: ".v2", 4: ".v4"}[count]
    registers = f"{{{places}}}" if count > 1 else places
    code = f"""
__device__ __forceinline__ void {name}({results}, const void* address) {{
  asm volatile("ld.global.nc.L1::no_allocate{vector}.u32 {registers}, [%{count}];"
               : {outputs} : "l"(address));
}}
"""
    T.evaluate(cuda_func_call(name, *words, address, source_code=code))


def _fetch_half(word: Any, address: Any) -> None:
    """Read two bytes as a word."""
    code = """
__device__ __forceinline__ void fewbits_fetch_half(unsigned& d, const void* address) {
  d = __ldg((const unsigned short*)address);
}
"""
    T.evaluate(cuda_func_call("fewbits_fetch_half", word, address, source_code=code))
