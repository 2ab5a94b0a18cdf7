"""The kernel for many rows on Hopper: codes decoded in registers as the A operand of ``wgmma``.

Each warp decodes 16 outputs by 64 inputs while the tensor cores multiply the 64 before, so decoding
costs no time where it is shorter than a product, which with 128 tokens or more it is. Tokens come
through the copy engine into a ring of stages; codes go from memory to registers, two chunks ahead.
Two warpgroups with outputs of their own share the tokens: while one waits, the other multiplies.

Groups' scales are applied to decoded numbers, in 16 bits: summing each group apart would double
the registers of the sums. They are relative to the largest of their output, so nothing overflows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics import mbarrier, tma, wgmma, wgmma_registers
from ..intrinsics.decode import Emitted
from ..parameters import Parameters, barrier, held, launch, long
from ..problem import Linear
from .exchange import finish, sums_bytes
from .lanes import fill_table
from .planes import CHUNK, LANES, TILE
from .slots import Slot, Source

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_GROUPS = 2
_WARPS = 4 * _GROUPS
_THREADS = LANES * _WARPS
#: Outputs of a block.
OUTPUTS = TILE * _WARPS
#: The word of two zeros that leaves a product of any sign as it is.
_MINUS_ZERO = 0x80008000


@dataclasses.dataclass(frozen=True)
class WarpgroupSizes:
    """How many rows are divided.

    Attributes:
        tokens: rows of x that a block takes, the N of the instruction.
        stages: chunks of the tokens that are under way or in use.
    """

    tokens: int
    stages: int

    @property
    def columns(self) -> int:
        """Groups of eight tokens."""
        return self.tokens // 8

    @property
    def stage_bytes(self) -> int:
        """Of a stage."""
        return self.tokens * tma.ROW

    def shared_bytes(self, problem: Linear) -> int:
        """Of a block: a table, the stages from a multiple of 1024 on, barriers."""
        layout: Any = problem.weight
        table = 2 << layout.bits if layout.has_table else 0
        ring = self.stages * (self.stage_bytes + 2 * mbarrier.BYTES)
        return max(table + tma.PATTERN + ring, sums_bytes(1, self.tokens, OUTPUTS))


def warpgroup(problem: Linear, sizes: WarpgroupSizes, name: str) -> Any:
    """The PrimFunc. Parameters as `Linear` says; K is a multiple of 8."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            parameters = Parameters.declare(problem)
            box = (sizes.tokens, CHUNK)
            x = tma.encode(parameters.x.data, 2, parameters.rows, problem.inputs, box)
            _Block(parameters, sizes, x).emit()
        return function.get()


@dataclasses.dataclass(frozen=True)
class _Lines:
    """What `finish` asks of tokens."""

    tokens: int
    lines: int
    columns: int
    thread: Any
    threads: int
    parts: int = 1


class _Block:
    """One block of threads: `OUTPUTS` by `sizes.tokens` results."""

    def __init__(self, parameters: Parameters, sizes: WarpgroupSizes, x: Any) -> None:
        """Launch, and compute what every step needs."""
        problem = parameters.problem
        layout: Any = problem.weight
        self.parameters, self.sizes, self.x, self.layout = parameters, sizes, x, layout
        self.kind = wgmma.Kind(problem.activation, problem.activation)
        across = -(-problem.outputs // OUTPUTS)
        down = (parameters.rows + (sizes.tokens - 1)) // sizes.tokens
        block, self.thread = launch(down * across, _THREADS)
        down = tirx.Cast("int32", down)
        self.first_token = held(block % down * sizes.tokens)
        self.first_tile = held(block // down * _WARPS)
        self.warp, self.lane = held(self.thread // LANES), held(self.thread % LANES)
        size = sizes.shared_bytes(problem)
        self.shared = T.alloc_buffer((size,), "uint8", scope="shared.dyn", align=128)
        table = T.address_of(self.shared[0]) if layout.has_table else None
        first = (2 << layout.bits) if layout.has_table else 0
        start = T.cuda.cvta_generic_to_shared(T.address_of(self.shared[first]))
        mask = 0x100000000 - tma.PATTERN
        self.ring = held((start + T.uint32(tma.PATTERN - 1)) & T.uint32(mask))
        self.source = Source(parameters, self.lane, table)
        tile = self.source.tile(self.first_tile + self.warp)
        self.slots = [Slot(self.source, tile) for _ in range(2)]
        self.left = [T.alloc_buffer((16,), "uint32", scope="local") for _ in range(2)]
        self.sums = T.alloc_buffer((sizes.tokens // 2,), "float32", scope="local")
        self.filling, self.using = (mbarrier.Ring.start(sizes.stages) for _ in range(2))

    def emit(self) -> None:
        """Emit the kernel's body."""
        sizes, steps = self.sizes, self.source.chunks
        for number in range(2):
            self._load(number, tirx.const(number, "int32"))
        with T.If(self.thread == 0), T.Then():
            for stage in range(sizes.stages):
                mbarrier.init(self._full(tirx.const(stage, "int32")), 1)
                mbarrier.init(self._empty(tirx.const(stage, "int32")), _WARPS)
            mbarrier.init_visible()
        if self.layout.has_table:
            fill_table(self.parameters, self.shared, self.thread, _THREADS)
        barrier()
        ahead = min(sizes.stages - 1, steps)
        with T.If(self.thread == 0), T.Then(), T.serial(ahead) as step:
            self._fill(step)
        for place in range(sizes.tokens // 2):
            T.buffer_store(self.sums, tirx.const(0.0, "float32"), [place])
        wgmma.defined(_elements(self.sums), "float32")
        self._decode(0)
        self._load(0, tirx.const(2, "int32"))
        if steps > 1:
            with T.serial(steps // 2) as pair:
                for half in range(2):
                    self._step(pair * 2 + half, half)
        if steps % 2:
            self._step(tirx.const(steps - 1, "int32"), 0)
        wgmma.settle(_elements(self.sums), "float32")
        lines: Any = _Lines(sizes.tokens, sizes.tokens, sizes.columns, self.thread, _THREADS)
        finish(
            self.parameters,
            self.shared,
            self.sums,
            tokens=lines,
            tiles=1,
            slices=1,
            slice_=tirx.const(0, "int32"),
            first_output=held(self.warp * TILE),
            outputs=OUTPUTS,
            place=(held(long(self.first_token)), held(self.first_tile * TILE)),
        )

    def _step(self, step: Any, half: int) -> None:
        """Multiply a chunk, decode the next one meanwhile, and ask for the third from here."""
        steps, ahead = self.source.chunks, self.sizes.stages - 1
        stage = self.using.stage[0]
        mbarrier.wait(self._full(stage), self.using.parity[0])
        wgmma.defined(_elements(self.left[half]), "uint32")
        right = T.Bind(wgmma.descriptor(self._stage(stage)))
        wgmma.fence()
        for part in range(4):
            words = [self.left[half][4 * part + word] for word in range(4)]
            along = T.uint64(part * (wgmma.BYTES >> 4))
            wgmma_registers.product(
                self.kind, self.sizes.tokens, _elements(self.sums), words, right + along
            )
        wgmma.commit()
        # Beyond the last chunk the last one is decoded once more, and not used.
        self._decode(1 - half)
        self._load(1 - half, step + 3)
        wgmma.wait(0)
        with T.If(self.lane == 0), T.Then():
            mbarrier.arrive(self._empty(stage))
        with T.If(tirx.all(self.thread == 0, step + ahead < steps)), T.Then():
            self._fill(step + ahead)
        self.using.advance()

    def _fill(self, step: Any) -> None:
        """One thread: begin to copy a chunk of the tokens."""
        stage = self.filling.stage[0]
        mbarrier.wait(self._empty(stage), self.filling.parity[0] ^ 1)
        mbarrier.expect(self._full(stage), self.sizes.stage_bytes)
        place = (self.first_token, step * CHUNK)
        tma.load(self._stage(stage), self.x, place, self._full(stage))
        self.filling.advance()

    def _load(self, number: int, chunk: Any) -> None:
        self.slots[number].load(held(tirx.min(chunk, self.source.chunks - 1)))

    def _decode(self, number: int) -> None:
        """A slot's chunk into its registers, scaled."""
        slot, left = self.slots[number], self.left[number]
        tile, each = slot.tile(), 4 // self.source.inside
        words, scales = Emitted(), []
        for part in range(4):
            registers = tile.registers(part // each, part)
            if self.layout.group is not None:
                if part % each == 0:
                    scales = [_pair(self.source.dtype, s) for s in tile.scales(part // each)]
                registers = [
                    words.fma(self.source.dtype, register, scales[place % 2], _MINUS_ZERO)
                    for place, register in enumerate(registers)
                ]
            for place, register in enumerate(registers):
                T.buffer_store(left, register, [4 * part + place])

    def _stage(self, stage: Any) -> Any:
        return self.ring + tirx.Cast("uint32", stage * self.sizes.stage_bytes)

    def _full(self, stage: Any) -> Any:
        first = self.sizes.stages * self.sizes.stage_bytes
        return self.ring + tirx.Cast("uint32", first + stage * mbarrier.BYTES)

    def _empty(self, stage: Any) -> Any:
        return self._full(stage + self.sizes.stages)


def _pair(dtype: str, scale: Any) -> Any:
    """The word of a float32 scale, rounded, in both halves."""
    short = {"float16": "f16x2", "bfloat16": "bf16x2"}[dtype]
    name = f"fewbits_pair_{short}"
    code = f"""
__device__ __forceinline__ unsigned {name}(float scale) {{
  unsigned d;
  asm("cvt.rn.{short}.f32 %0, %1, %1;" : "=r"(d) : "f"(scale));
  return d;
}}
"""
    return held(cuda_func_call(name, scale, source_code=code, return_type="uint32"))


def _elements(buffer: Any) -> list[Any]:
    return [buffer[place] for place in range(int(buffer.ty.shape[0]))]
