"""The kernel: copies many steps ahead, swizzled tiles, sums in registers, the epilogue on them.

Each step of `depth` bytes along K is copied by ``cp.async`` while earlier ones are multiplied; one
barrier per step. What is beyond the matrices is zero in shared memory, so any number of rows is
right, and nothing but K's multiple of 16 bytes is asked of the shape.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics.mma import BYTES, COLUMNS, KINDS, ROWS, commit, load_matrices, multiply, wait
from ..parameters import Parameters, barrier, held, launch, long
from ..problem import Linear
from .sizes import Sizes
from .store import Store
from .tile import Tile

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Rows of tiles whose blocks follow each other, so that they share columns in the second cache.
_GROUP = 8


def kernel(problem: Linear, sizes: Sizes, name: str) -> Any:
    """The PrimFunc of a dense product on tensor cores. Parameters as `Linear` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            Block(Parameters.declare(problem), sizes).emit()
        return function.get()


class Block:
    """One block of threads: `sizes.rows` by `sizes.columns` results."""

    def __init__(self, parameters: Parameters, sizes: Sizes) -> None:
        """Launch, and compute what every step needs."""
        problem = parameters.problem
        self.parameters, self.sizes = parameters, sizes
        self.kind = KINDS[problem.activation]
        self.steps = -(-problem.inputs * self.kind.bytes // sizes.depth)
        across = -(-problem.outputs // sizes.columns)
        down = (parameters.rows + (sizes.rows - 1)) // sizes.rows
        block, self.thread = launch(down * across, sizes.threads)
        row_tile, column_tile = _grouped(block, tirx.Cast("int32", down), across)
        self.first_row = held(long(row_tile) * sizes.rows)
        self.first_column = held(long(column_tile) * sizes.columns)
        self.warp = held(self.thread // 32)
        self.lane = held(self.thread % 32)
        self.shared = T.alloc_buffer((sizes.shared_bytes,), "uint8", scope="shared.dyn", align=128)
        self.sums = T.alloc_buffer((sizes.sums,), self.kind.accumulator, scope="local")
        self.left = self.left_tile()
        self.right = Tile(
            self.shared,
            parameters.weight[0],
            self.kind,
            sizes,
            lines=sizes.columns,
            offset=sizes.rows * sizes.depth,
            first=self.first_column,
            end=problem.outputs,
            thread=self.thread,
        )

    def left_tile(self) -> Any:
        """The activations' tile at the start of a stage: whatever has `Tile`'s two methods."""
        return Tile(
            self.shared,
            self.parameters.x,
            self.kind,
            self.sizes,
            lines=self.sizes.rows,
            offset=0,
            first=self.first_row,
            end=self.parameters.rows,
            thread=self.thread,
        )

    def emit(self) -> None:
        """Emit the kernel's body."""
        sizes = self.sizes
        with T.unroll(sizes.sums) as i:
            T.buffer_store(self.sums, tirx.const(0, self.kind.accumulator), [i])
        self._accumulate()
        _, down, across = self._place()
        store = Store(
            self.parameters,
            sizes,
            self.sums,
            self.first_row + long(down * (sizes.row_tiles * ROWS) + self.lane // 4),
            self.first_column + long(across * (sizes.column_tiles * COLUMNS) + self.lane % 4 * 2),
        )
        if sizes.slices == 1:
            store.emit()
            return
        self._add_slices()
        with T.If(self.warp < sizes.warps_down * sizes.warps_across), T.Then():
            store.emit()

    def _accumulate(self) -> None:
        """All steps: the copies of step i + stages - 1 begin before step i is multiplied."""
        ahead = self.sizes.stages - 1
        slice_, down, across = self._place()
        left_rows = down * (self.sizes.row_tiles * ROWS) + self.lane % 16
        left_place = self.left.place(left_rows, slice_ * 2 + self.lane // 16)
        right_rows = across * (self.sizes.column_tiles * COLUMNS) + self.lane % 8
        if self.sizes.column_tiles > 1:
            right_rows = right_rows + self.lane // 16 * COLUMNS
        right_place = self.right.place(right_rows, slice_ * 2 + self.lane // 8 % 2)
        for step in range(ahead):
            if step < self.steps:
                self._copy(tirx.const(step, "int32"), tirx.const(step, "int32"))
            commit()
        with T.serial(self.steps) as step:
            wait(ahead - 1)
            barrier()
            with T.If(step + ahead < self.steps), T.Then():
                self._copy(step + ahead, (step + ahead) % self.sizes.stages)
            commit()
            self._multiply(step % self.sizes.stages, left_place, right_place)
        wait(0)

    def _copy(self, step: Any, stage: Any) -> None:
        """Begin to copy a step's tiles of both matrices."""
        self.left.copy(step, stage)
        self.right.copy(step, stage)

    def _multiply(self, stage: Any, left_place: Any, right_place: Any) -> None:
        """Add the products of the stage's tiles that are the warp's."""
        sizes = self.sizes
        left = T.alloc_buffer((4 * sizes.row_tiles,), "uint32", scope="local")
        right = T.alloc_buffer((2 * sizes.column_tiles,), "uint32", scope="local")
        base = held(stage * sizes.stage_bytes)
        for part in range(sizes.depth // (BYTES * sizes.slices)):
            # Slices and parts are bits of the chunk's number that the lanes' part leaves zero, and
            # the swizzle is an exclusive or: so is the way to another part.
            turn = part * sizes.slices * BYTES
            row = held(base + (left_place ^ turn))
            for i in range(sizes.row_tiles):
                words = [left[4 * i + w] for w in range(4)]
                place = row + i * ROWS * sizes.depth
                load_matrices(words, T.address_of(self.shared[place]))
            column = held(base + (right_place ^ turn) + sizes.rows * sizes.depth)
            for j in range(0, sizes.column_tiles, 2):
                count = min(2, sizes.column_tiles - j)
                words = [right[2 * j + w] for w in range(2 * count)]
                place = column + j * COLUMNS * sizes.depth
                load_matrices(words, T.address_of(self.shared[place]))
            for i in range(sizes.row_tiles):
                for j in range(sizes.column_tiles):
                    at = (i * sizes.column_tiles + j) * 4
                    multiply(
                        self.kind,
                        [self.sums[at + w] for w in range(4)],
                        [left[4 * i + w] for w in range(4)],
                        [right[2 * j + w] for w in range(2)],
                    )

    def _place(self) -> tuple[Any, Any, Any]:
        """The warp's slice, its place down and its place across."""
        sizes = self.sizes
        each = sizes.warps_down * sizes.warps_across
        return (
            self.warp // each,
            self.warp % each // sizes.warps_across,
            self.warp % sizes.warps_across,
        )

    def _add_slices(self) -> None:
        """Add the sums of all slices, in their order, in the first slice's warps."""
        sizes, dtype = self.sizes, self.kind.accumulator
        threads = sizes.warps_down * sizes.warps_across * 32
        shape = (sizes.slices - 1, sizes.sums, threads)
        exchange = T.decl_buffer(shape, dtype, data=self.shared.data, scope="shared.dyn")
        slice_, thread = self.thread // threads, self.thread % threads
        barrier()
        with T.If(slice_ > 0), T.Then(), T.unroll(sizes.sums) as i:
            T.buffer_store(exchange, self.sums[i], [slice_ - 1, i, thread])
        barrier()
        with T.If(slice_ == 0), T.Then(), T.unroll(sizes.sums) as i:
            total = self.sums[i]
            for other in range(sizes.slices - 1):
                total = total + exchange[other, i, thread]
            T.buffer_store(self.sums, total, [i])


def _grouped(block: Any, down: Any, across: int) -> tuple[Any, Any]:
    """A block's tile, down and across: blocks go through groups of rows, down first."""
    first = held(block // (_GROUP * across) * _GROUP)
    height = held(tirx.min(down - first, tirx.const(_GROUP, "int32")))
    within = held(block % (_GROUP * across))
    return first + tirx.truncmod(within, height), tirx.truncdiv(within, height)
