"""The kernel for few rows: codes go from memory to registers, with nothing in between.

The activations of a block's few tokens, all of K, lie in shared memory from the start. After that
no warp waits for another: each loads 16 bytes a lane of several chunks ahead, decodes them as the
A operand of ``mma.sync``, and asks for the next chunk as soon as it has used one. A tensor core
multiplies 256 codes per instruction; it hardly matters that most of its columns are not used,
as what is scarce is instructions per code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..intrinsics.mma import commit, wait
from ..parameters import Parameters, barrier, held, launch, long
from ..problem import Linear
from .exchange import finish, sums_bytes
from .few_bit import FewBit
from .lanes import fill_table
from .planes import CHUNK, LANES, TILE, padded
from .products import add_chunk
from .slots import Slot, Source
from .tokens import LINE, Tokens, parts

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


@dataclasses.dataclass(frozen=True)
class StreamSizes:
    """How few rows are divided.

    Attributes:
        tokens: rows of x that a block takes.
        along: warps that share outputs and take every so many-th chunk of the inputs.
        tiles: tiles of 16 outputs that each warp takes.
        ahead: chunks that a warp has asked for before it uses one.
    """

    tokens: int
    along: int
    tiles: int
    ahead: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return LANES * self.along

    @property
    def outputs(self) -> int:
        """Of a block."""
        return TILE * self.tiles

    def rounds(self, inputs: int) -> int:
        """How often each warp goes through its chunks in flight."""
        return -(-padded(1, inputs)[1] // (CHUNK * self.along * self.ahead))

    def shared_bytes(self, problem: Linear) -> int:
        """Of a block."""
        layout: Any = problem.weight
        lines = self.tokens * parts(problem.activation)
        chunks = self.rounds(problem.inputs) * self.along * self.ahead
        table = 2 << layout.bits if layout.has_table else 0
        return max(table + chunks * lines * LINE, sums_bytes(self.along, lines, self.outputs))


def stream_fits(problem: Linear, architecture: Architecture, sizes: StreamSizes) -> bool:
    """Whether a block has the memory and the registers, and work for its warps."""
    layout: Any = problem.weight
    chunks = padded(1, problem.inputs)[1] // CHUNK
    columns = -(-sizes.tokens * parts(problem.activation) // 8)
    grouped = layout.group is not None
    words = layout.bits + (4 if grouped else 0)
    sums = 4 * columns * (sizes.tiles + grouped) + 8 * columns
    return (
        sizes.shared_bytes(problem) <= architecture.shared_memory
        and sizes.along * sizes.ahead <= max(2, chunks + chunks // 4)
        and sums + sizes.tiles * sizes.ahead * words <= 144
    )


def stream(problem: Linear, sizes: StreamSizes, name: str) -> Any:
    """The PrimFunc. Parameters as `Linear` says; any number of rows is right."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(Parameters.declare(problem), sizes).emit()
        return function.get()


class _Block:
    """One block of threads: `sizes.outputs` by `sizes.tokens` results."""

    def __init__(self, parameters: Parameters, sizes: StreamSizes) -> None:
        """Launch, and compute what every chunk needs."""
        problem = parameters.problem
        layout: Any = problem.weight
        assert isinstance(layout, FewBit)
        self.parameters, self.sizes, self.layout = parameters, sizes, layout
        across = -(-problem.outputs // sizes.outputs)
        down = (parameters.rows + (sizes.tokens - 1)) // sizes.tokens
        block, self.thread = launch(down * across, sizes.threads)
        self.first_token = held(long(block // across) * sizes.tokens)
        self.first_tile = held(block % across * sizes.tiles)
        self.warp, self.lane = held(self.thread // LANES), held(self.thread % LANES)
        size = sizes.shared_bytes(problem)
        self.shared = T.alloc_buffer((size,), "uint8", scope="shared.dyn", align=128)
        self.start = 2 << layout.bits if layout.has_table else 0
        self.tokens = Tokens(
            parameters, sizes.tokens, self.shared, self.thread, sizes.threads, self.first_token
        )
        count = sizes.tiles * 4 * self.tokens.columns
        self.sums = T.alloc_buffer((count,), "float32", scope="local")
        table = T.address_of(self.shared[0]) if layout.has_table else None
        source = Source(parameters, self.lane, table)
        self.chunks, self.inside = source.chunks, source.inside
        tiles = [source.tile(self.first_tile + number) for number in range(sizes.tiles)]
        self.slots = [[Slot(source, tile) for tile in tiles] for _ in range(sizes.ahead)]

    def emit(self) -> None:
        """Emit the kernel's body."""
        sizes = self.sizes
        rounds = sizes.rounds(self.parameters.problem.inputs)
        with T.unroll(int(self.sums.ty.shape[0])) as i:
            T.buffer_store(self.sums, tirx.const(0.0, "float32"), [i])
        for number in range(sizes.ahead):
            self._load(number, tirx.const(0, "int32"))
        if self.layout.has_table:
            fill_table(self.parameters, self.shared, self.thread, sizes.threads)
        self.tokens.copy(
            tirx.const(0, "int32"),
            rounds * sizes.along * sizes.ahead,
            tirx.const(self.start, "int32"),
        )
        commit()
        wait(0)
        barrier()
        if rounds > 1:
            with T.serial(rounds - 1) as turn:
                for number in range(sizes.ahead):
                    self._multiply(number, turn)
                    self._load(number, turn + 1)
        for number in range(sizes.ahead):
            self._multiply(number, tirx.const(rounds - 1, "int32"))
        finish(
            self.parameters,
            self.shared,
            self.sums,
            tokens=self.tokens,
            tiles=sizes.tiles,
            slices=sizes.along,
            slice_=self.warp,
            first_output=tirx.const(0, "int32"),
            outputs=sizes.outputs,
            place=(self.first_token, self.first_tile * TILE),
        )

    def _chunk(self, number: int, turn: Any) -> Any:
        """The warp's chunk of a place in flight: the block's warps read neighbours."""
        return held((turn * self.sizes.ahead + number) * self.sizes.along + self.warp)

    def _load(self, number: int, turn: Any) -> None:
        """Ask for a chunk. Beyond the last one it is the last one, whose tokens are zero."""
        chunk = self._chunk(number, turn)
        if self.chunks % (self.sizes.along * self.sizes.ahead):
            chunk = held(tirx.min(chunk, self.chunks - 1))
        for slot in self.slots[number]:
            slot.load(chunk)

    def _multiply(self, number: int, turn: Any) -> None:
        """Add the products of a chunk."""
        place = held(self._chunk(number, turn) * (self.tokens.lines * LINE) + self.start)
        tiles = [slot.tile() for slot in self.slots[number]]
        add_chunk(self.sums, tiles, self.tokens, place, self.inside)
