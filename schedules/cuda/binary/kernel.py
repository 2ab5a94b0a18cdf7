"""The kernel: every pair of planes is a binary product, and all pairs share a block's tiles.

A warp has all planes of its rows and columns, so shifts and additions of the counts happen in its
registers. Where a side's codes have an offset (±1), the other side's bits are counted by one more
product, with a column of ones.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..intrinsics.bits import multiply_bits
from ..intrinsics.mma import COLUMNS, ROWS, commit, load_matrices, wait
from ..mma.tile import swizzled
from ..parameters import barrier, held, launch, long
from ..template import Kernel
from .problem import BinaryProduct
from .sizes import Sizes, classes
from .store import PackedStore, PlainStore
from .tile import Matrix, Patches

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def binary_product(
    problem: BinaryProduct, architecture: Architecture, sizes: Sizes, name: str
) -> Kernel:
    """The kernel; parameters as `BinaryProduct.parameters` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(problem, sizes).emit()
        made = function.get()
    return Kernel(name, made, architecture, "tirx", "BMMA")


class _Block:
    """One block of threads: `sizes.rows` by `sizes.columns` results."""

    def __init__(self, problem: BinaryProduct, sizes: Sizes) -> None:
        self.problem, self.sizes = problem, sizes
        self.steps = -(-problem.length * 4 // sizes.depth)
        self.separate = sizes.separate(problem)
        self.weights = classes(problem)

    def emit(self) -> None:
        """Emit parameters and body."""
        problem, sizes = self.problem, self.sizes
        images = tirx.Var("m", "int64")
        x, w, *rest, y = (
            T.arg(name, T.buffer(shape, dtype)) for name, shape, dtype in problem.parameters(images)
        )
        self.column_sums = rest.pop(0) if problem.needs_sums else None
        self.operands, self.y = tuple(rest), y
        self.rows = images
        if problem.window is not None:
            self.rows = images * tirx.const(
                problem.window.output[0] * problem.window.output[1], "int64"
            )
        outputs = problem.outputs if problem.output is None else 32 * int(y.ty.shape[2])
        across = -(-outputs // sizes.columns)
        down = (self.rows + (sizes.rows - 1)) // sizes.rows
        block, thread = launch(down * across, sizes.threads)
        self.first_row = held(long(block // across) * sizes.rows)
        self.first_column = held(long(block % across) * sizes.columns)
        self.lane, self.warp = held(thread % 32), held(thread // 32)
        bytes_ = sizes.stages * sizes.stage_bytes(problem)
        self.shared = T.alloc_buffer((bytes_,), "uint8", scope="shared.dyn", align=128)
        self._tiles(x, w, thread)
        self._registers()
        self._accumulate()
        self._finish()

    def _tiles(self, x: Any, w: Any, thread: Any) -> None:
        problem, sizes = self.problem, self.sizes
        stage = sizes.stage_bytes(problem)
        right_at = sizes.rows * problem.x.bits * sizes.depth
        maker = Matrix if problem.window is None else Patches
        self.left = maker(
            self.shared, _flat(x), sizes, stage, planes=problem.x.bits, rows=sizes.rows,
            length=problem.length, offset=0, thread=thread,
        )  # fmt: skip
        if isinstance(self.left, Patches):
            self.left.begin(problem, self.first_row, self.rows)
        else:
            self.left.begin(self.first_row, self.rows)
        self.right = Matrix(
            self.shared, _flat(w), sizes, stage, planes=problem.w.bits, rows=sizes.columns,
            length=problem.length, offset=right_at, thread=thread,
        )  # fmt: skip
        self.right.begin(self.first_column, tirx.const(problem.outputs, "int64"))
        down, across = self._place()
        left_row = down * (sizes.row_tiles * ROWS) + self.lane % 16
        self.left_row, self.left_chunk = held(left_row), held(self.lane // 16)
        right_row = across * (sizes.column_tiles * COLUMNS) + self.lane % 8 + self.lane // 16 * 8
        self.right_row, self.right_chunk = held(right_row), held(self.lane // 8 % 2)

    def _place(self) -> tuple[Any, Any]:
        return self.warp // self.sizes.warps_across, self.warp % self.sizes.warps_across

    def _registers(self) -> None:
        """Counts, and the finished sums, all zero."""
        sizes, problem = self.sizes, self.problem
        self.totals = _zeros(sizes.sums)
        kinds = len(self.weights) if self.separate else 1
        self.counts = _zeros(kinds * sizes.sums)
        self.ones: Any = None
        self.ones_now: Any = None
        if problem.w.offset:
            each = sizes.row_tiles * 4
            self.ones = _zeros(each * (problem.x.bits if self.separate else 1))
            self.ones_now = self.ones if self.separate else _zeros(each)
        self.a = T.alloc_buffer((4 * sizes.row_tiles * sizes.parts,), "uint32", scope="local")
        each = 2 * sizes.column_tiles * sizes.parts
        self.kept = sizes.keeps_weights(problem)
        held_planes = problem.w.bits if self.kept else 1
        self.b = T.alloc_buffer((each * held_planes,), "uint32", scope="local")

    def _accumulate(self) -> None:
        """All steps: the copies of step i + stages - 1 begin before step i is multiplied."""
        sizes = self.sizes
        ahead = sizes.stages - 1
        for step in range(ahead):
            if step < self.steps:
                self._copy(tirx.const(step, "int32"), tirx.const(step, "int32"))
            commit()
        with T.serial(self.steps) as step:
            wait(ahead - 1)
            barrier()
            with T.If(step + ahead < self.steps), T.Then():
                self._copy(step + ahead, (step + ahead) % sizes.stages)
            commit()
            self._multiply(step % sizes.stages)
        wait(0)

    def _copy(self, step: Any, stage: Any) -> None:
        self.left.copy(step, stage)
        self.right.copy(step, stage)

    def _multiply(self, stage: Any) -> None:
        """Add the products of all pairs of planes in a stage."""
        problem = self.problem
        base = held(stage * self.sizes.stage_bytes(problem))
        if not self.separate:
            self._fold(base)
            return
        if self.kept:
            for t in range(problem.w.bits):
                self._load_right(base, t, t)
        for s in range(problem.x.bits):
            self._load_left(base, s)
            if self.ones is not None:
                self._count_ones(self.ones, s)
            for t in range(problem.w.bits):
                if not self.kept:
                    self._load_right(base, t, 0)
                weight = problem.x.weights[s] * problem.w.weights[t]
                self._pair(self.weights.index(weight) * self.sizes.sums, t if self.kept else 0)

    def _fold(self, base: Any) -> None:
        """The same where sums for all weights would not fit: each pair's are added up at once.

        Loops at run time, as up to 64 pairs in a row are too much code.
        """
        problem = self.problem
        with T.serial(problem.x.bits) as s:
            self._load_left(base, s)
            if self.ones is not None:
                _clear(self.ones_now, 4 * self.sizes.row_tiles)
                self._count_ones(self.ones_now, 0)
                weight = held(problem.x.weight(s))
                for place in range(4 * self.sizes.row_tiles):
                    total = self.ones[place] + self.ones_now[place] * weight
                    T.buffer_store(self.ones, total, [place])
            with T.serial(problem.w.bits) as t:
                self._load_right(base, t, 0)
                _clear(self.counts, self.sizes.sums)
                self._pair(0, 0)
                weight = held(problem.x.weight(s) * problem.w.weight(t))
                for place in range(self.sizes.sums):
                    total = self.totals[place] + self.counts[place] * weight
                    T.buffer_store(self.totals, total, [place])

    def _load_left(self, base: Any, plane: Any) -> None:
        sizes = self.sizes
        for part in range(sizes.parts):
            for i in range(sizes.row_tiles):
                line = plane * sizes.rows + i * ROWS + self.left_row
                place = base + swizzled(line, self.left_chunk + 2 * part, sizes.depth)
                at = 4 * (part * sizes.row_tiles + i)
                load_matrices(
                    [self.a[at + word] for word in range(4)], T.address_of(self.shared[place])
                )

    def _load_right(self, base: Any, plane: Any, slot: int) -> None:
        sizes = self.sizes
        for part in range(sizes.parts):
            for j in range(0, sizes.column_tiles, 2):
                line = plane * sizes.columns + j * COLUMNS + self.right_row
                chunk = self.right_chunk + 2 * part
                place = base + self.right.offset + swizzled(line, chunk, sizes.depth)
                at = 2 * ((slot * sizes.parts + part) * sizes.column_tiles + j)
                load_matrices(
                    [self.b[at + word] for word in range(4)], T.address_of(self.shared[place])
                )

    def _left(self, part: int, tile: int) -> list[Any]:
        at = 4 * (part * self.sizes.row_tiles + tile)
        return [self.a[at + word] for word in range(4)]

    def _pair(self, first: int, slot: int) -> None:
        """One plane of each side: counts from `first` on, the weights' words in a slot."""
        sizes = self.sizes
        for part in range(sizes.parts):
            for i in range(sizes.row_tiles):
                for j in range(sizes.column_tiles):
                    at = first + (i * sizes.column_tiles + j) * 4
                    right = 2 * ((slot * sizes.parts + part) * sizes.column_tiles + j)
                    multiply_bits(
                        [self.counts[at + word] for word in range(4)],
                        self._left(part, i),
                        [self.b[right + word] for word in range(2)],
                    )

    def _count_ones(self, counts: Any, slot: int) -> None:
        """The bits of each row of the loaded plane: its product with ones."""
        sizes, full = self.sizes, tirx.const(0xFFFFFFFF, "uint32")
        for part in range(sizes.parts):
            for i in range(sizes.row_tiles):
                at = 4 * (slot * sizes.row_tiles + i)
                words = [counts[at + word] for word in range(4)]
                multiply_bits(words, self._left(part, i), [full, full])

    def _finish(self) -> None:
        """Counts become integers, and what the epilogue makes of them is stored."""
        problem, sizes = self.problem, self.sizes
        down, across = self._place()
        row = held(self.first_row + long(down * (sizes.row_tiles * ROWS) + self.lane // 4))
        column = held(
            self.first_column + long(across * (sizes.column_tiles * COLUMNS) + self.lane % 4 * 2)
        )
        for j in range(sizes.column_tiles):
            for pair in range(2):
                fixed: Any = tirx.const(
                    problem.terms * problem.x.offset * problem.w.offset, "int32"
                )
                if self.column_sums is not None:
                    place = held(column + (j * COLUMNS + pair))
                    there = tirx.min(place, tirx.const(problem.outputs - 1, "int64"))
                    fixed = held(fixed + self.column_sums[there] * problem.x.offset)
                for i in range(sizes.row_tiles):
                    for half in range(2):
                        at = (i * sizes.column_tiles + j) * 4 + half * 2 + pair
                        T.buffer_store(self.totals, self._total(at, i, half, fixed), [at])
        store = PlainStore if problem.output is None else PackedStore
        store(
            problem, sizes, self.totals, self.operands, self.y, self.rows, row, column, self.lane
        ).emit()

    def _total(self, at: int, tile: int, half: int, fixed: Any) -> Any:
        problem, total = self.problem, self.totals[at] + fixed
        if self.separate:
            for kind, weight in enumerate(self.weights):
                total = total + self.counts[kind * self.sizes.sums + at] * weight
        if self.ones is not None and not self.separate:
            total = total + self.ones[4 * tile + 2 * half] * problem.w.offset
        elif self.ones is not None:
            for plane, weight in enumerate(problem.x.weights):
                count = self.ones[4 * (plane * self.sizes.row_tiles + tile) + 2 * half]
                total = total + count * (weight * problem.w.offset)
        return total


def _flat(array: Any) -> Any:
    """The array as one of words."""
    size: Any = tirx.const(1, "int64")
    for extent in array.ty.shape:
        size = size * extent
    return T.decl_buffer((size,), "uint32", data=array.data)


def _zeros(count: int) -> Any:
    cells = T.alloc_buffer((count,), "int32", scope="local")
    _clear(cells, count)
    return cells


def _clear(cells: Any, count: int) -> None:
    for place in range(count):
        T.buffer_store(cells, tirx.const(0, "int32"), [place])
