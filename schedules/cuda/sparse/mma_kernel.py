"""The kernel of ``mma.sp``: copies many steps ahead, sums in registers, the epilogue on them.

The same pipeline as for dense products (`mma`): each step is copied by ``cp.async`` while earlier
ones are multiplied, one barrier per step. The weight's pieces lie in shared memory as in global
memory; rows of x are swizzled.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics.mma import COLUMNS, COPY, KINDS, ROWS, commit, copy, load_matrices, wait
from ..mma.tile import Tile
from ..parameters import Parameters, barrier, held, launch, long
from ..problem import Linear
from .instructions import BYTES, multiply
from .layout import OUTPUTS, PRODUCTS, STEP, VALUES, Sparse24
from .mma_sizes import SparseSizes
from .narrow_tile import NarrowTile
from .store import Store

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Rows of tiles whose blocks follow each other, so that they share weights in the second cache.
_GROUP = 8

#: Bytes of 16 outputs' kept elements of a step, and from eight rows to the next, and along K.
_TILE, _EIGHT, _CORE = ROWS * STEP // 2, 512, 128


def kernel(problem: Linear, sizes: SparseSizes, name: str) -> Any:
    """The PrimFunc of a product with a 2:4 weight. Parameters as `Linear` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            Block(Parameters.declare(problem), sizes).emit()
        return function.get()


class Block:
    """One block of threads: `sizes.rows` rows of x by `sizes.columns` outputs."""

    def __init__(self, parameters: Parameters, sizes: SparseSizes) -> None:
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
        self.first_output = held(column_tile * sizes.columns)
        warp, self.lane = held(self.thread // 32), held(self.thread % 32)
        each = sizes.warps_down * sizes.warps_across
        self.slice = held(warp // each)
        self.down = held(warp % each // sizes.warps_across)
        self.across = held(warp % sizes.warps_across)
        self.shared = T.alloc_buffer((sizes.shared_bytes,), "uint8", scope="shared.dyn", align=128)
        self.words = T.decl_buffer(
            (sizes.shared_bytes // 4,), "uint32", data=self.shared.data, scope="shared.dyn"
        )
        self.sums = T.alloc_buffer((sizes.sums,), self.kind.accumulator, scope="local")
        aligned = problem.inputs * self.kind.bytes % COPY == 0
        self.x = (Tile if aligned else NarrowTile)(
            self.shared,
            parameters.x,
            self.kind,
            sizes,
            lines=sizes.rows,
            offset=0,
            first=self.first_row,
            end=parameters.rows,
            thread=self.thread,
        )

    @property
    def layout(self) -> Sparse24:
        """The weight's."""
        weight = self.parameters.problem.weight
        assert isinstance(weight, Sparse24)
        return weight

    def emit(self) -> None:
        """Emit the kernel's body."""
        with T.unroll(self.sizes.sums) as i:
            T.buffer_store(self.sums, tirx.const(0, self.kind.accumulator), [i])
        self._accumulate()
        if self.sizes.slices == 1:
            self._store()
            return
        self._add_slices()
        with T.If(self.slice == 0), T.Then():
            self._store()

    def _accumulate(self) -> None:
        """All steps: the copies of step i + stages - 1 begin before step i is multiplied."""
        ahead = self.sizes.stages - 1
        rows = self.down * (self.sizes.row_tiles * COLUMNS) + self.lane % 8
        place = self.x.place(rows, self.slice * (STEP // COPY) + self.lane // 8)
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
            self._multiply(step % self.sizes.stages, place)
        wait(0)

    def _copy(self, step: Any, stage: Any) -> None:
        """Begin to copy a step of x and of the weight."""
        self.x.copy(step, stage)
        pieces, steps = self.layout.pieces(
            self.parameters.problem.outputs, self.parameters.problem.inputs
        )
        base = held(stage * self.sizes.stage_bytes)
        per_stage = self.sizes.depth // STEP
        metadata = self.layout.metadata_bytes // OUTPUTS
        for number in range(per_stage):
            # Beyond K, x is zero: which weights it meets there does not matter.
            along = step * per_stage + number
            if steps % per_stage:
                along = held(tirx.min(along, tirx.const(steps - 1, "int32")))
            for target, source, each in (
                (self._values(number), 0, STEP // 2),
                (self._metadata(number), VALUES, metadata),
            ):
                self._run(base + target, along, source, each, pieces)

    def _run(self, target: Any, step: Any, source: int, each: int, pieces: int) -> None:
        """Copy `each` bytes of each of the block's outputs, from byte `source` of their pieces on.

        Outputs beyond the last piece get its bytes: nothing is stored for them.
        """
        weight = self.parameters.weight[0]
        total = self.sizes.columns * each
        for start in range(0, total, self.sizes.threads * COPY):
            byte = self.thread * COPY + start
            whole = held(self.first_output * each + byte)
            piece = whole // (OUTPUTS * each)
            if pieces * OUTPUTS % self.sizes.columns:
                piece = tirx.min(piece, tirx.const(pieces - 1, "int32"))
            word = (whole % (OUTPUTS * each) + source) // 4
            arguments = (
                T.address_of(self.shared[target + byte]),
                T.address_of(weight[long(piece), long(step), long(word)]),
                None,
            )
            if start + self.sizes.threads * COPY <= total:
                copy(*arguments)
            else:
                with T.If(byte < total), T.Then():
                    copy(*arguments)

    def _values(self, number: Any) -> Any:
        """Where a stage's kept elements of step `number` begin."""
        step = self.sizes.columns * (self.layout.piece_bytes // OUTPUTS)
        return self.sizes.rows * self.sizes.depth + number * step

    def _metadata(self, number: Any) -> Any:
        """And their metadata."""
        return self._values(number) + self.sizes.columns * (STEP // 2)

    def _multiply(self, stage: Any, x_place: Any) -> None:
        """Add the products of the stage's tiles that are the warp's."""
        sizes, words = self.sizes, self.layout.words
        left = T.alloc_buffer((4 * sizes.column_tiles,), "uint32", scope="local")
        right = T.alloc_buffer((4 * sizes.row_tiles,), "uint32", scope="local")
        codes = T.alloc_buffer((words * sizes.column_tiles,), "uint32", scope="local")
        base = held(stage * sizes.stage_bytes)
        lane = self.lane
        tile = self.across * sizes.column_tiles
        core = lane % 8 * COPY + lane // 8 % 2 * _EIGHT + lane // 16 * _CORE
        for part in range(sizes.depth // (STEP * sizes.slices)):
            number = self.slice + part * sizes.slices
            values = held(base + self._values(number) + tile * _TILE + core)
            metadata = held((base + self._metadata(number)) // 4 + (tile * 32 + lane) * words)
            for i in range(sizes.column_tiles):
                for word in range(words):
                    at = metadata + (i * 32 * words + word)
                    T.buffer_store(codes, self.words[at], [i * words + word])
            for product in range(PRODUCTS):
                for i in range(sizes.column_tiles):
                    place = values + (i * _TILE + product * 2 * _CORE)
                    registers = [left[4 * i + w] for w in range(4)]
                    load_matrices(registers, T.address_of(self.shared[place]))
                # Steps and products are bits of the place that the lane's part leaves zero.
                turn = part * sizes.slices * STEP + product * BYTES
                row = held(base + (x_place ^ turn))
                for j in range(sizes.row_tiles):
                    registers = [right[4 * j + w] for w in range(4)]
                    place = row + j * COLUMNS * sizes.depth
                    load_matrices(registers, T.address_of(self.shared[place]))
                word, selector = (product, 0) if words == PRODUCTS else (0, product)
                for i in range(sizes.column_tiles):
                    for j in range(sizes.row_tiles):
                        at = (i * sizes.row_tiles + j) * 4
                        multiply(
                            self.kind,
                            [self.sums[at + w] for w in range(4)],
                            [left[4 * i + w] for w in range(4)],
                            [right[4 * j + w] for w in range(4)],
                            codes[i * words + word],
                            selector,
                        )

    def _add_slices(self) -> None:
        """Add the sums of all slices, in their order, in the first slice's warps."""
        sizes, dtype = self.sizes, self.kind.accumulator
        threads = sizes.warps_down * sizes.warps_across * 32
        shape = (sizes.slices - 1, sizes.sums, threads)
        exchange = T.decl_buffer(shape, dtype, data=self.shared.data, scope="shared.dyn")
        thread = self.thread % threads
        barrier()
        with T.If(self.slice > 0), T.Then(), T.unroll(sizes.sums) as i:
            T.buffer_store(exchange, self.sums[i], [self.slice - 1, i, thread])
        barrier()
        with T.If(self.slice == 0), T.Then(), T.unroll(sizes.sums) as i:
            total = self.sums[i]
            for other in range(sizes.slices - 1):
                total = total + exchange[other, i, thread]
            T.buffer_store(self.sums, total, [i])

    def _total(self, tile: int, group: int, element: int) -> Any:
        """A finished sum of the lane, before the epilogue."""
        return self.sums[(tile * self.sizes.row_tiles + group) * 4 + element]

    def _store(self) -> None:
        sizes = self.sizes
        first = self.first_row + long(self.down * (sizes.row_tiles * COLUMNS))
        output = long(self.first_output + self.across * (sizes.column_tiles * ROWS))
        Store(
            self.parameters,
            self._total,
            self.lane,
            [output + i * ROWS for i in range(sizes.column_tiles)],
            [first + j * COLUMNS for j in range(sizes.row_tiles)],
            self.parameters.problem.outputs % sizes.columns == 0,
        ).emit()


def _grouped(block: Any, down: Any, across: int) -> tuple[Any, Any]:
    """A block's tile, down and across: blocks go through groups of rows, down first."""
    first = held(block // (_GROUP * across) * _GROUP)
    height = held(tirx.min(down - first, tirx.const(_GROUP, "int32")))
    within = held(block % (_GROUP * across))
    return first + tirx.truncmod(within, height), held(tirx.truncdiv(within, height))
