"""The kernel: codes decoded in registers as the A operand of ``mma.sync``, tokens as B.

Outputs are the rows of the instruction, so a single token wastes columns of it and nothing else.
Warps share a block's tokens; each copies its own codes to shared memory by ``cp.async``, several
steps ahead, in the order in which its lanes read them. Products of a group of inputs are summed
apart and scaled in float32, so 16-bit numbers never see a scale. At the end the warps that share
outputs add their sums in a fixed order: results do not depend on timing.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics.mma import commit, wait
from ..parameters import Parameters, barrier, held, launch, long
from ..problem import Linear
from .exchange import finish
from .few_bit import FewBit
from .lanes import Share, fill_table
from .planes import CHUNK, TILE, padded
from .products import add_chunk
from .sizes import Sizes, Stage
from .tokens import LINE, Tokens

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def kernel(problem: Linear, sizes: Sizes, name: str) -> Any:
    """The PrimFunc of a product with a few-bit weight. Parameters as `Linear` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            block = _Block(Parameters.declare(problem), sizes)
            # Rather fewer blocks on a multiprocessor than registers in memory.
            with T.attr({"tirx.launch_bounds_min_blocks_per_sm": 1}):
                block.emit()
        return function.get()


class _Block:
    """One block of threads: `sizes.outputs` by `sizes.tokens` results."""

    def __init__(self, parameters: Parameters, sizes: Sizes) -> None:
        """Launch, and compute what every step needs."""
        problem = parameters.problem
        layout: Any = problem.weight
        assert isinstance(layout, FewBit)
        self.parameters, self.sizes, self.layout = parameters, sizes, layout
        self.stage = Stage(sizes, layout)
        self.chunks = padded(1, problem.inputs)[1] // CHUNK
        self.steps = -(-self.chunks // sizes.along)
        across = -(-problem.outputs // sizes.outputs)
        down = (parameters.rows + (sizes.tokens - 1)) // sizes.tokens
        block, self.thread = launch(down * across, sizes.threads)
        down = tirx.Cast("int32", down)
        self.first_token = held(long(block % down) * sizes.tokens)
        self.first_tile = held(block // down * (sizes.across * sizes.tiles))
        self.warp, self.lane = held(self.thread // 32), held(self.thread % 32)
        self.along = held(self.warp % sizes.along)
        self.across = held(self.warp // sizes.along)
        self.shared = T.alloc_buffer(
            (self.stage.shared_bytes,), "uint8", scope="shared.dyn", align=128
        )
        count = 4 * sizes.columns
        self.sums = T.alloc_buffer((sizes.tiles * count,), "float32", scope="local")
        self.tokens = Tokens(
            parameters, sizes.tokens, self.shared, self.thread, sizes.threads, self.first_token
        )
        self.share = Share(
            parameters,
            self.stage,
            self.shared,
            self.lane,
            first_tile=self.first_tile + self.across * sizes.tiles,
            base=sizes.token_bytes + self.warp * (sizes.tiles * self.stage.tile_bytes),
        )

    def emit(self) -> None:
        """Emit the kernel's body."""
        sizes, stage = self.sizes, self.stage
        with T.unroll(sizes.tiles * 4 * sizes.columns) as i:
            T.buffer_store(self.sums, tirx.const(0.0, "float32"), [i])
        if self.layout.has_table:
            fill_table(self.parameters, self.shared, self.thread, sizes.threads)
        ahead = sizes.stages - 1
        for step in range(ahead):
            if step < self.steps:
                self._copy(tirx.const(step, "int32"), step * stage.bytes)
            commit()
        place = T.alloc_buffer((2,), "int32", scope="local")
        T.buffer_store(place, tirx.const(0, "int32"), [0])
        T.buffer_store(place, tirx.const(ahead % sizes.stages * stage.bytes, "int32"), [1])
        with T.serial(self.steps) as step:
            wait(ahead - 1)
            barrier()
            with T.If(step + ahead < self.steps), T.Then():
                self._copy(step + ahead, place[1])
            commit()
            self._multiply(place[0])
            for which in range(2):
                T.buffer_store(place, place[which] + stage.bytes, [which])
                with T.If(place[which] == sizes.stages * stage.bytes), T.Then():
                    T.buffer_store(place, tirx.const(0, "int32"), [which])
        wait(0)
        finish(
            self.parameters,
            self.shared,
            self.sums,
            tokens=self.tokens,
            tiles=sizes.tiles,
            slices=sizes.along,
            slice_=self.along,
            first_output=held(self.across * (sizes.tiles * TILE)),
            outputs=sizes.outputs,
            place=(self.first_token, held(self.first_tile * TILE)),
        )

    def _copy(self, step: Any, base: Any) -> None:
        """Begin to copy what a step needs."""
        base = held(base + tirx.const(self.stage.table_bytes, "int32"))
        self.tokens.copy(step * self.sizes.along, self.sizes.along, base)
        chunk = held(tirx.min(step * self.sizes.along + self.along, self.chunks - 1))
        self.share.copy(chunk, base)

    def _multiply(self, base: Any) -> None:
        """Add the products of the warp's chunk.

        Beyond the last chunk the tokens are zero, and the codes those of the last chunk again.
        """
        sizes = self.sizes
        base = held(base + self.stage.table_bytes)
        place = held(base + self.along * (sizes.tokens * LINE))
        tiles = [self.share.tile(base, number) for number in range(sizes.tiles)]
        add_chunk(self.sums, tiles, self.tokens, place, self.stage.groups)
