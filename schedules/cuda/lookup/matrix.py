"""The matrix form: signs become halves in registers as the A operand of ``mma.sync``, tokens are B.

A plane's sign, put over the half that is 1, times the plane's scale, added to the planes before it:
three instructions decode a pair of a plane. That is what look-ups are compared with at few rows;
with many, each decoded register meets up to 64 tokens. Scales are applied in 16 bits, relative to
the largest of their output, so nothing overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics.decode import Emitted, Number, pair
from ..intrinsics.mma import KINDS, commit, multiply, wait
from ..intrinsics.registers import held
from ..parameters import Parameters, barrier, launch, long
from ..problem import Linear
from ..weight_only.exchange import finish
from .activations import LINE, Activations
from .binary_coded import TILE, VECTOR
from .sizes import LANES, MatrixSizes
from .terms import Weight

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_SIGNS = 0x80008000
#: The word of two zeros that leaves a sum of any sign as it is.
_MINUS_ZERO = 0x80008000
#: Products that a word's inputs take: 4 of a lane at a time.
_PRODUCTS = 8


def decode_binary(problem: Linear, sizes: MatrixSizes, name: str) -> Any:
    """The PrimFunc. Parameters as `Linear` says; any number of rows is right."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(Parameters.declare(problem), sizes).emit()
        return function.get()


class _Block:
    """One block of threads: `sizes.outputs` by `sizes.tokens` results."""

    def __init__(self, parameters: Parameters, sizes: MatrixSizes) -> None:
        """Launch, and compute what every step needs."""
        problem = parameters.problem
        self.parameters, self.sizes = parameters, sizes
        self.dtype: Number = "float16" if problem.activation == "float16" else "bfloat16"
        self.emitted = Emitted()
        across = -(-problem.outputs // sizes.outputs)
        down = (parameters.rows + (sizes.tokens - 1)) // sizes.tokens
        block, self.thread = launch(down * across, sizes.threads)
        down = tirx.Cast("int32", down)
        self.first_token = held(long(block % down) * sizes.tokens)
        self.first_tile = held(block // down * sizes.across)
        warp, lane = held(self.thread // LANES), held(self.thread % LANES)
        self.along, self.across = held(warp % sizes.along), held(warp // sizes.along)
        self.row, self.quad = held(lane // 4), held(lane % 4)
        self.weight = Weight(parameters)
        self.tile = self.weight.tile(self.first_tile + self.across)
        self.chunks = -(-self.weight.words // 4)
        self.steps = -(-self.chunks // sizes.along)
        self.shared = T.alloc_buffer((sizes.shared_bytes,), "uint8", scope="shared.dyn", align=128)
        self.x = Activations(parameters, sizes, self.shared, self.thread, self.first_token)
        self.sums = T.alloc_buffer((2 * 4 * self.x.columns,), "float32", scope="local")
        bits, layout = self.weight.layout.bits, self.weight.layout
        self.inside = 2 if layout.group is not None and layout.group < 32 else 1
        self.signs = T.alloc_buffer((bits * VECTOR,), "uint32", scope="local")
        self.count = self.inside * layout.terms * self.weight.term_words
        self.terms = T.alloc_buffer((self.count,), "uint32", scope="local")

    def emit(self) -> None:
        """Emit the kernel's body."""
        sizes = self.sizes
        for i in range(int(self.sums.ty.shape[0])):
            T.buffer_store(self.sums, tirx.const(0.0, "float32"), [i])
        self._fetch(tirx.const(0, "int32"))
        self.x.copy(tirx.const(0, "int32"), tirx.const(0, "int32"))
        commit()
        with T.serial(self.steps) as step:
            base = held(step % 2 * sizes.step_bytes)
            wait(0)
            barrier()
            with T.If(step + 1 < self.steps), T.Then():
                self.x.copy(held((step + 1) * sizes.along), held(sizes.step_bytes - base))
            commit()
            self._multiply(step, base)
        wait(0)
        tokens: Any = self.x
        finish(
            self.parameters,
            self.shared,
            self.sums,
            tokens=tokens,
            tiles=2,
            slices=sizes.along,
            slice_=self.along,
            first_output=held(self.across * TILE),
            outputs=sizes.outputs,
            place=(self.first_token, held(self.first_tile * TILE)),
        )

    def _fetch(self, step: Any) -> None:
        """Ask for a step's signs and scales. Beyond the last word it is the last, where x is 0."""
        word = (step * self.sizes.along + self.along) * 4 + self.quad
        word = held(tirx.min(word, self.weight.words - 1))
        layout, size = self.weight.layout, self.weight.term_words
        for plane in range(layout.bits):
            target = [self.signs[plane * VECTOR + i] for i in range(VECTOR)]
            self.weight.fetch_signs(target, self.tile, self.row, plane, word)
        for half in range(self.inside):
            group = held(self.weight.group_of(word, half))
            for term in range(layout.terms):
                first = (half * layout.terms + term) * size
                target = [self.terms[first + i] for i in range(size)]
                self.weight.fetch_terms(target, self.tile, self.row, group, term)

    def _multiply(self, step: Any, base: Any) -> None:
        """Add the products of the warp's chunk, and ask for the next one's signs."""
        layout, size = self.weight.layout, self.weight.term_words
        signs = [held(self.signs[i]) for i in range(layout.bits * VECTOR)]
        scales: list[list[list[Any]]] = []
        for half in range(self.inside):
            terms = []
            for term in range(layout.terms):
                first = (half * layout.terms + term) * size
                found = self.weight.terms_of([self.terms[first + i] for i in range(size)])
                terms.append([both(self.dtype, value) for value in found])
            scales.append(terms)
        self._fetch(held(tirx.min(step + 1, self.steps - 1)))
        place = held(base + self.along * (self.sizes.tokens * LINE))
        for product in range(_PRODUCTS):
            if product % 2 == 0:
                self.x.load(place, product // 2)
            terms = scales[product // (_PRODUCTS // self.inside)]
            for tile in range(2):
                left = []
                for register in range(4):
                    i = 2 * tile + register % 2
                    bit = 2 * product + register // 2
                    planes = [signs[plane * VECTOR + i] for plane in range(layout.bits)]
                    left.append(self._decoded(planes, [term[i] for term in terms], bit))
                for column in range(self.x.columns):
                    at = (tile * self.x.columns + column) * 4
                    first = 4 * column + 2 * (product % 2)
                    right = [self.x.words[first], self.x.words[first + 1]]
                    sums = [self.sums[at + i] for i in range(4)]
                    multiply(KINDS[self.dtype], sums, left, right)

    def _decoded(self, planes: Sequence[Any], terms: Sequence[Any], bit: int) -> Any:
        """The pair of numbers whose signs lie at a bit of each half of the planes' words."""
        emitted = self.emitted
        total: Any = terms[-1] if self.weight.layout.offsets else _MINUS_ZERO
        for plane, word in enumerate(planes):
            moved = emitted.shift(word, bit - 15) if bit < 15 else word
            ones = emitted.take(moved, _SIGNS, pair(self.dtype, 1.0))
            total = emitted.fma(self.dtype, ones, terms[plane], total)
        return total


def both(dtype: Number, value: Any) -> Any:
    """The word of a float32 number, rounded, in both halves."""
    short = {"float16": "f16x2", "bfloat16": "bf16x2"}[dtype]
    name = f"fewbits_pair_{short}"
    code = f"""
__device__ __forceinline__ unsigned {name}(float scale) {{
  unsigned d;
  asm("cvt.rn.{short}.f32 %0, %1, %1;" : "=r"(d) : "f"(scale));
  return d;
}}
"""
    return held(cuda_func_call(name, value, source_code=code, return_type="uint32"))
