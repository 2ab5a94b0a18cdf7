"""The kernel for one to four rows: each byte of signs is looked up in a table of signed sums.

A block makes tables of x for some hundred inputs and uses them for all of its outputs. A lane owns
eight inputs a table and looks bytes of their signs up for output after output: one byte permutation
puts the byte into an address, one load finds the sum of eight products, one addition takes it. The
tables of the 32 lanes lie in the 32 banks, so loads never wait for each other. Sums of a plane are
multiplied by its scale as they are added, in float32; then lanes are added, pairwise, and slices of
the inputs in their order: by one block after the other or, on Hopper, by blocks of a cluster, whose
sums are added through shared memory. Nothing depends on timing.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics import mbarrier
from ..intrinsics.ptx import issue
from ..intrinsics.registers import held
from ..parameters import Parameters, barrier, launch, long
from ..problem import Linear
from .binary_coded import APART, TILE, VECTOR
from .lanes import add_lanes
from .sizes import LANES, SUMS, LutSizes
from .tables import Tables
from .terms import Weight

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def lut(problem: Linear, sizes: LutSizes, name: str) -> Any:
    """The PrimFunc. Parameters as `Linear` says; any number of rows is right."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(Parameters.declare(problem), sizes).emit()
        return function.get()


class _Block:
    """One block of threads: a slice of the inputs for `sizes.outputs` by `sizes.rows` results."""

    def __init__(self, parameters: Parameters, sizes: LutSizes) -> None:
        """Launch, and compute what every step needs."""
        problem = parameters.problem
        self.parameters, self.sizes = parameters, sizes
        across = -(-problem.outputs // sizes.outputs)
        down = (parameters.rows + (sizes.rows - 1)) // sizes.rows
        block, self.thread = launch(down * (across * sizes.split), sizes.threads)
        self.rank: Any = tirx.const(0, "int32")
        if sizes.split > 1:
            T.cta_id_in_cluster([sizes.split])
            self.rank = held(block % sizes.split)
            block = held(block // sizes.split)
        self.first_row = held(long(block // across) * sizes.rows)
        self.first_tile = held(block % across * sizes.tiles)
        self.lane = held(self.thread % LANES)
        # As a value of lane 0: so nvcc knows that a warp's lanes take the same way.
        full, zero = tirx.const(0xFFFFFFFF, "uint32"), tirx.const(0, "int32")
        warp = self.thread // LANES
        self.warp = held(tirx.call_pure_extern("int32", "__shfl_sync", full, warp, zero))
        self.weight = Weight(parameters)
        self.layout = self.weight.layout
        self.shared = T.alloc_buffer((sizes.shared_bytes,), "uint8", scope="shared.dyn", align=1024)
        count = sizes.shared_bytes // 4
        self.floats = T.decl_buffer((count,), "float32", data=self.shared.data, scope="shared.dyn")
        self.tables = Tables(parameters, sizes, self.shared, self.floats, self.lane, self.warp)
        self.sums = T.alloc_buffer((SUMS,), "float32", scope="local")
        self.slices = -(-self.weight.words // sizes.words)
        #: Vectors of outputs of the block, as many at a time as a warp has sums for.
        self.units = sizes.tiles * APART // sizes.places

    def emit(self) -> None:
        """Emit the kernel's body."""
        sizes = self.sizes
        count = sizes.rows * sizes.outputs
        for turn in range(-(-count // sizes.threads)):
            number = held(self.thread + turn * sizes.threads)
            with T.If(number < count), T.Then():
                zero = tirx.const(0.0, "float32")
                T.buffer_store(self.floats, zero, [self._sum(number)])
        rounds = -(-self.slices // sizes.split)
        with T.serial(rounds) as turn:
            slice_ = held(turn * sizes.split + self.rank)
            barrier()
            self.tables.make(slice_, self.first_row)
            barrier()
            with T.serial(-(-self.units // sizes.warps)) as step:
                unit = held(step * sizes.warps + self.warp)
                with T.If(unit < self.units), T.Then():
                    self._unit(unit, slice_)
        if sizes.split > 1:
            mbarrier.cluster_sync()
        else:
            barrier()
        self._finish()
        if sizes.split > 1:
            # No block ends while others read its memory.
            mbarrier.cluster_sync()

    def _sum(self, number: Any) -> Any:
        """Where a result so far is, behind the tables, in words."""
        return number + self.sizes.table_bytes // 4

    def _unit(self, unit: Any, slice_: Any) -> None:
        """Look up one slice of a few vectors of outputs."""
        sizes, layout = self.sizes, self.layout
        each = APART // sizes.places
        tile = self.weight.tile(self.first_tile + unit // each)
        first = held(unit % each * sizes.places)
        word = self.tables.word(slice_)
        group = held(self.weight.group_of(word, self.tables.half))
        for place in range(SUMS):
            T.buffer_store(self.sums, tirx.const(0.0, "float32"), [place])
        planes = []
        for number in range(sizes.places):
            at = held(first + number)
            signs = T.alloc_buffer((layout.bits * VECTOR,), "uint32", scope="local")
            size = self.weight.term_words
            terms = T.alloc_buffer((layout.terms * size,), "uint32", scope="local")
            for plane in range(layout.bits):
                target = [signs[plane * VECTOR + i] for i in range(VECTOR)]
                self.weight.fetch_signs(target, tile, at, plane, word)
            for term in range(layout.terms):
                target = [terms[term * size + i] for i in range(size)]
                self.weight.fetch_terms(target, tile, at, group, term)
            planes.append((signs, terms))
            # The next vector is on its way while this one is looked up.
            if number:
                self._look_up(number - 1, *planes[number - 1])
        self._look_up(sizes.places - 1, *planes[-1])
        total = add_lanes([self.sums[i] for i in range(SUMS)], self.lane)
        # Lane l has sum number l: of vector l // (4 · rows), output and row.
        place = held(first + self.lane // (VECTOR * sizes.rows))
        output = held(self.lane // sizes.rows % VECTOR * APART + place)
        row = self.lane % sizes.rows
        at = held(self._sum(row * sizes.outputs + unit // each * TILE + output))
        T.buffer_store(self.floats, self.floats[at] + total, [at])

    def _look_up(self, number: int, signs: Any, terms: Any) -> None:
        """All planes of a vector."""
        sizes, layout, size = self.sizes, self.layout, self.weight.term_words
        for plane in range(layout.bits):
            scales = self.weight.terms_of([terms[plane * size + i] for i in range(size)])
            for i in range(VECTOR):
                found = self.tables.find(signs[plane * VECTOR + i])
                for row in range(sizes.rows):
                    self._add(number, i, row, found[row] * scales[i])
        if layout.offsets:
            last = layout.bits * size
            offsets = self.weight.terms_of([terms[last + i] for i in range(size)])
            for i in range(VECTOR):
                for row in range(sizes.rows):
                    self._add(number, i, row, self.tables.plain[row] * offsets[i])

    def _add(self, number: int, i: int, row: int, value: Any) -> None:
        at = (number * VECTOR + i) * self.sizes.rows + row
        T.buffer_store(self.sums, self.sums[at] + value, [at])

    def _finish(self) -> None:
        """Add the slices of a cluster's blocks; factor, epilogue, store."""
        sizes, parameters = self.sizes, self.parameters
        count = sizes.rows * sizes.outputs
        each = -(-count // sizes.split)
        part = T.alloc_buffer((1,), "float32", scope="local")
        with T.serial(-(-each // sizes.threads)) as turn:
            mine = held(turn * sizes.threads + self.thread)
            number = held(self.rank * each + mine)
            row = held(self.first_row + long(number // sizes.outputs))
            column = held(long(self.first_tile * TILE + number % sizes.outputs))
            inside = tirx.all(mine < each, number < count, row < parameters.rows)
            with T.If(tirx.all(inside, column < parameters.problem.outputs)), T.Then():
                total = self.floats[self._sum(number)]
                if sizes.split > 1:
                    at = T.cuda.cvta_generic_to_shared(T.address_of(self.floats[self._sum(number)]))
                    at = held(at)
                    total = tirx.const(0.0, "float32")
                    for rank in range(sizes.split):
                        place = mbarrier.remote(at, tirx.const(rank, "int32"))
                        issue("ld.shared::cluster.f32", part[0], place)
                        total = held(total + part[0])
                total = held(total * self.weight.factors[column])
                T.buffer_store(parameters.y, parameters.value(total, row, column), [row, column])
