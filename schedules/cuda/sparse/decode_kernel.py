"""The kernel of ``mma.sp`` with few-bit weights: kept codes become the sparse operand in registers.

Rows of x come through shared memory, several steps ahead. Codes, scales and metadata go from memory
to the registers of the lanes that use them, as many steps ahead: nobody shares them. Products
of a group of inputs are summed apart and scaled in float32, as with dense few-bit weights
(`weight_only`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics.mma import COLUMNS, COPY, ROWS, commit, load_matrices, wait
from ..parameters import Parameters, barrier, held, long
from ..problem import Linear
from ..weight_only.planes import LANES, TILE
from ..weight_only.slots import Slot, Source, fetch
from .decode_sizes import STEP, DecodeSizes
from .few_bit import WORDS, SparseFewBit
from .instructions import BYTES, multiply
from .mma_kernel import Block

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Instructions along K of a chunk.
_PARTS = STEP // BYTES


def kernel(problem: Linear, sizes: DecodeSizes, name: str) -> Any:
    """The PrimFunc of a product with a 2:4 weight of few bits. Parameters as `Linear` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            block = DecodeBlock(Parameters.declare(problem), sizes)
            # Rather fewer blocks on a multiprocessor than registers in memory.
            with T.attr({"tirx.launch_bounds_min_blocks_per_sm": 1}):
                block.emit()
        return function.get()


class _Loads:
    """Registers of one chunk of one tile: codes, scales, metadata."""

    def __init__(self, source: Source, tile: Any, metadata: Any) -> None:
        """Registers without values; `tile` from `Source.tile`."""
        self.slot, self.source = Slot(source, tile), source
        self.metadata = T.alloc_buffer((WORDS,), "uint32", scope="local")
        zero = tirx.const(0, "int64")
        self.base = T.address_of(metadata[tile, zero, long(source.lane), zero])

    def load(self, chunk: Any) -> None:
        """Ask for a chunk."""
        self.slot.load(chunk)
        words = [self.metadata[word] for word in range(WORDS)]
        fetch(words, self.base, chunk * (LANES * WORDS * 4))


class DecodeBlock(Block):
    """One block of threads: `sizes.rows` rows of x by `sizes.columns` outputs."""

    def __init__(self, parameters: Parameters, sizes: DecodeSizes) -> None:
        """Launch, and compute what every step needs."""
        super().__init__(parameters, sizes)
        problem = parameters.problem
        weight = problem.weight
        assert isinstance(weight, SparseFewBit)
        kept = dataclasses.replace(problem, inputs=problem.inputs // 2, weight=weight.kept)
        names = [array.name for array in weight.arrays(problem.outputs, problem.inputs)]
        self.arrays = dict(zip(names, parameters.weight, strict=True))
        self.source = Source(
            dataclasses.replace(parameters, problem=kept, weight=parameters.weight[:-1]),
            self.lane,
            None,
        )
        first = self.first_output // TILE + self.across * sizes.column_tiles
        self.tiles = [self.source.tile(first + i) for i in range(sizes.column_tiles)]
        metadata = self.arrays["metadata"]
        self.loads = [
            [_Loads(self.source, tile, metadata) for tile in self.tiles]
            for _ in range(sizes.stages)
        ]

    def _accumulate(self) -> None:
        """All steps; each stage of x has registers of the weight that go with it."""
        stages = self.sizes.stages
        ahead = stages - 1
        rows = self.down * (self.sizes.row_tiles * COLUMNS) + self.lane % 8
        place = self.x.place(rows, self.slice * (STEP // COPY) + self.lane // 8)
        for step in range(stages):
            if step < min(ahead, self.steps):
                self.x.copy(tirx.const(step, "int32"), tirx.const(step, "int32"))
            if step < ahead:
                commit()
            self._ask(self.loads[step], tirx.const(step, "int32"))
        with T.serial(-(-self.steps // stages)) as turn:
            for stage in range(stages):
                step = held(turn * stages + stage)
                with T.If(step < self.steps), T.Then():
                    wait(ahead - 1)
                    barrier()
                    with T.If(step + ahead < self.steps), T.Then():
                        into = tirx.const((stage + ahead) % stages, "int32")
                        self.x.copy(step + ahead, into)
                    commit()
                    self._chunk(stage, place)
                    self._ask(self.loads[stage], step + stages)
        wait(0)

    def _ask(self, loads: list[_Loads], step: Any) -> None:
        """Read a step's chunk of the slice; beyond the last one, x is zero, and that one is."""
        last = tirx.const(self.source.chunks - 1, "int32")
        chunk = held(tirx.min(step * self.sizes.slices + self.slice, last))
        for load in loads:
            load.load(chunk)

    def _chunk(self, stage: int, x_place: Any) -> None:
        """Add the products of the slice's chunk in a stage."""
        sizes, layout, loads = self.sizes, self.source.layout, self.loads[stage]
        base = stage * sizes.stage_bytes
        tiles = [load.slot.tile() for load in loads]
        apart = layout.group is not None
        parted = T.alloc_buffer((sizes.sums,), "float32", scope="local") if apart else self.sums
        right = T.alloc_buffer((4 * sizes.row_tiles,), "uint32", scope="local")
        each = _PARTS // self.source.inside
        for group in range(self.source.inside):
            if apart:
                for i in range(sizes.sums):
                    T.buffer_store(parted, tirx.const(0.0, "float32"), [i])
            for part in range(group * each, (group + 1) * each):
                row = held((x_place ^ (part * BYTES)) + base)
                for j in range(sizes.row_tiles):
                    words = [right[4 * j + w] for w in range(4)]
                    place = row + j * COLUMNS * sizes.depth
                    load_matrices(words, T.address_of(self.shared[place]))
                for i, tile in enumerate(tiles):
                    left = tile.registers(group, part)
                    for j in range(sizes.row_tiles):
                        at = (i * sizes.row_tiles + j) * 4
                        multiply(
                            self.kind,
                            [parted[at + w] for w in range(4)],
                            left,
                            [right[4 * j + w] for w in range(4)],
                            loads[i].metadata[part // 2],
                            part % 2,
                        )
            if apart:
                for i, tile in enumerate(tiles):
                    scales = tile.scales(group)
                    for at in range(4 * sizes.row_tiles):
                        place = i * 4 * sizes.row_tiles + at
                        scaled = parted[place] * scales[at // 2 % 2]
                        T.buffer_store(self.sums, self.sums[place] + scaled, [place])

    def _store(self) -> None:
        """Multiply by the outputs' factors, and store."""
        factors, sizes = self.arrays["factors"], self.sizes
        for i, tile in enumerate(self.tiles):
            for half in range(2):
                factor = held(factors[tile * ROWS + long(self.lane // 4 + 8 * half)])
                for j in range(sizes.row_tiles):
                    for second in range(2):
                        place = (i * sizes.row_tiles + j) * 4 + 2 * half + second
                        T.buffer_store(self.sums, self.sums[place] * factor, [place])
        super()._store()
