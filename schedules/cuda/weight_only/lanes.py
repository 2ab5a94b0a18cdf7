"""A warp's codes, scales and zero points: copied by its lanes, read back by the same lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics.decode import Emitted, Number
from ..intrinsics.mma import COPY, copy
from ..parameters import Parameters, held, long
from .decoder import Decoder
from .few_bit import FewBit
from .planes import CHUNK, LANES, TILE, padded
from .sizes import Stage

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


class Share:
    """What one warp reads of the weight."""

    def __init__(
        self,
        parameters: Parameters,
        stage: Stage,
        shared: Any,
        lane: Any,
        first_tile: Any,
        base: Any,
    ) -> None:
        """Where it comes from and goes to.

        Args:
            parameters: for the weight's arrays.
            stage: how shared memory is divided.
            shared: it, in bytes.
            lane: the thread's lane.
            first_tile: the warp's first tile of outputs.
            base: the warp's share of a stage.
        """
        self.parameters, self.stage, self.layout = parameters, stage, stage.layout
        self.shared, self.lane, self.base = shared, lane, held(base)
        problem = parameters.problem
        self.dtype: Number = number_of(problem.activation)
        table = T.address_of(shared[0]) if self.layout.has_table else None
        self.words = Emitted(table, constants=Decoder(self.layout, self.dtype).constants())
        rows, columns = padded(problem.outputs, problem.inputs)
        self.chunks, self.rows = columns // CHUNK, rows
        self.groups = self.layout.groups(problem.inputs)
        last = rows // TILE - 1
        # Beyond the last tile it is read again; what comes of it is not stored.
        self.tiles = [
            held(tirx.min(first_tile + number, last)) for number in range(stage.sizes.tiles)
        ]

    def copy(self, chunk: Any, base: Any) -> None:
        """Begin to copy a chunk of the warp's tiles to the stage at `base`."""
        names = [a.name for a in self.layout.arrays(1, 1)]
        arrays = dict(zip(names, self.parameters.weight, strict=True))
        for number, tile in enumerate(self.tiles):
            place = held(base + self.base + number * self.stage.tile_bytes)
            first = 0
            at = held(long(tile) * self.chunks + long(chunk))
            for plane in self.layout.planes:
                size = LANES * plane.words
                self._units(arrays["codes"], first + at * size, place, 4 * size)
                first += self.rows * self.chunks * CHUNK * plane.width // 32
                place = place + 4 * size
            group = self._group(chunk)
            at = (long(tile) * self.groups + long(group)) * TILE
            if self.layout.group is not None:
                self._units(arrays["scales"], at, place, self.stage.scale_bytes)
                place = place + self.stage.scale_bytes
            if self.layout.zero_points:
                self._units(arrays["zeros"], at, place, self.stage.zero_bytes)

    def _group(self, chunk: Any) -> Any:
        """The first group that a chunk touches."""
        if self.layout.group is None:
            return tirx.const(0, "int32")
        if self.layout.group >= CHUNK:
            return chunk // (self.layout.group // CHUNK)
        return chunk * self.stage.groups

    def _units(self, array: Any, first: Any, place: Any, size: int) -> None:
        """Begin to copy `size` bytes, 16 a lane and turn."""
        item = {"uint32": 4, "float32": 4, "float16": 2, "uint8": 1}[str(array.dtype)]
        units = size // COPY
        first = held(first)
        for turn in range(-(-units // LANES)):
            unit = self.lane + turn * LANES

            def one(unit: Any = unit) -> None:
                source = T.address_of(array[first + long(unit * (COPY // item))])
                copy(T.address_of(self.shared[place + unit * COPY]), source, None)

            if (turn + 1) * LANES <= units:
                one()
                continue
            with T.If(unit < units), T.Then():
                one()

    def tile(self, base: Any, number: int) -> Tile:
        """A tile of the stage at `base`, its codes in registers."""
        place = held(base + self.base + number * self.stage.tile_bytes)
        lane, start = [], 0
        for plane in self.layout.planes:
            words = T.alloc_buffer((plane.words,), "uint32", scope="local")
            for first in range(0, plane.words, plane.vector):
                size = 4 * plane.vector
                at = place + start + 4 * LANES * first + self.lane * size
                target = [words[first + w] for w in range(plane.vector)]
                load_words(target, T.address_of(self.shared[at]))
            lane.append([words[w] for w in range(plane.words)])
            start += 4 * LANES * plane.words
        pair = self.lane // 4 * 2

        def scales(group: int) -> list[Any]:
            item = 2 if self.layout.scale == "float16" else 4
            first = held((place + start + group * TILE * item) // item + pair)
            view = self._view(self.layout.scale, item)
            return [held(tirx.Cast("float32", view[first + i])) for i in range(2)]

        def zeros(group: int) -> list[Any]:
            first = held(place + start + self.stage.scale_bytes + group * TILE + pair)
            return [held(tirx.Cast("uint32", self.shared[first + i])) for i in range(2)]

        return Tile(self.layout, self.dtype, lane, scales, zeros, self.words)

    def _view(self, dtype: str, item: int) -> Any:
        count = self.stage.shared_bytes // item
        return T.decl_buffer((count,), dtype, data=self.shared.data, scope="shared.dyn")


class Tile:
    """A tile's codes of a chunk, as one lane has them."""

    def __init__(
        self,
        layout: FewBit,
        dtype: Number,
        lane: list[list[Any]],
        scales: Callable[[int], list[Any]],
        zeros: Callable[[int], list[Any]],
        words: Emitted,
    ) -> None:
        """Nothing is emitted yet.

        Args:
            layout: of the weight.
            dtype: of the registers.
            lane: the lane's words, by plane.
            scales: float32, those of the lane's two outputs for a group of the chunk.
            zeros: likewise zero points, as uint32.
            words: the instructions.
        """
        self.layout, self.scales = layout, scales
        self.dtype: Number = dtype
        self.chunk = Decoder(layout, dtype).chunk(words, lane)
        self._load = zeros
        self._zeros: dict[int, list[Any]] = {}

    def registers(self, group: int, number: int) -> list[Any]:
        """The A operand of a tile of inputs, which is in a group of the chunk."""
        if not self.layout.zero_points:
            return self.chunk.tile(number)
        if group not in self._zeros:
            found = self._load(group)
            self._zeros[group] = [as_zero(self.layout, self.dtype, zero) for zero in found]
        return self.chunk.tile(number, self._zeros[group])


def as_zero(layout: FewBit, dtype: Number, zero: Any) -> Any:
    """A zero point, a uint32 below 256, as `Chunk.tile` takes it."""
    if dtype == "bfloat16" and layout.bits == 8:
        return held(tirx.Cast("float32", zero))
    words = Emitted()
    magic = {"float16": 0x64006400, "bfloat16": 0x43004300}[dtype]
    minus = {"float16": 0xE400E400, "bfloat16": 0xC300C300}[dtype]
    one = {"float16": 0x3C003C00, "bfloat16": 0x3F803F80}[dtype]
    both = held(zero | zero << tirx.const(16, "uint32") | tirx.const(magic, "uint32"))
    return words.fma(dtype, both, one, minus)


def number_of(activation: str) -> Number:
    """What tensor cores multiply: float32 activations are split into bfloat16."""
    return "float16" if activation == "float16" else "bfloat16"


def fill_table(parameters: Parameters, shared: Any, thread: Any, threads: int) -> None:
    """Store the format's levels at the start of shared memory, as tensor cores take them."""
    problem = parameters.problem
    layout: Any = problem.weight
    dtype = number_of(problem.activation)
    levels = parameters.weight[-1]
    count = 1 << layout.bits
    view = T.decl_buffer((count,), dtype, data=shared.data, scope="shared.dyn")
    for turn in range(-(-count // threads)):
        number = held(thread + turn * threads)
        with T.If(number < count), T.Then():
            value = levels[number]
            if dtype != "float16":
                value = tirx.Cast(dtype, tirx.Cast("float32", value))
            T.buffer_store(view, value, [number])


def load_words(words: list[Any], address: Any) -> None:
    """Read one, two or four words that follow each other, at once."""
    count = len(words)
    name = f"fewbits_load_{count}"
    kind = {1: "unsigned", 2: "uint2", 4: "uint4"}[count]
    results = ", ".join(f"unsigned& d{i}" for i in range(count))
    fields = ["v"] if count == 1 else [f"v.{field}" for field in "xyzw"[:count]]
    stores = " ".join(f"d{i} = {field};" for i, field in enumerate(fields))
    code = f"""
__device__ __forceinline__ void {name}({results}, const void* address) {{
  {kind} v = *(const {kind}*)address;
  {stores}
}}
"""
    T.evaluate(cuda_func_call(name, *words, address, source_code=code))
