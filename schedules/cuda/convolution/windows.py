"""Convolutions of few channels per group, depthwise ones above all: each thread walks its window.

There is too little to multiply for tensor cores. A thread makes a few neighbouring channels of a
few neighbouring pixels; neighbouring threads have neighbouring channels. It reads a word of
channels at a time. Bytes are multiplied by ``dp4a`` without being unpacked: of a depthwise
convolution's weights each lies alone in a word, at the place that its channel has in x.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..parameters import held, launch, long
from .parameters import Declared
from .problem import Convolution
from .window_sizes import WindowSizes, per_word, reads_words

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def window_weight(problem: Convolution, weight: np.ndarray) -> np.ndarray:
    """The weight [O, kh, kw, I / groups] as words [taps, words of inputs, O].

    float32 numbers of float convolutions; int32 words of int8 ones, with up to four bytes.
    """
    terms = weight.reshape(problem.outputs, problem.taps, -1).transpose(1, 2, 0)
    if problem.activation != "int8":
        return np.ascontiguousarray(terms, np.float32)
    codes = terms.astype(np.int8).view(np.uint8).astype(np.uint32)
    if problem.is_depthwise and reads_words(problem):
        shifts = (np.arange(problem.outputs) % 4 * 8).astype(np.uint32)
        return np.ascontiguousarray(codes << shifts).view(np.int32)
    count = per_word(problem)
    apart = codes.reshape(problem.taps, -1, count, problem.outputs)
    words = sum(apart[:, :, place] << np.uint32(8 * place) for place in range(count))
    return np.ascontiguousarray(words, np.uint32).view(np.int32)


def weight_array(problem: Convolution) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of `window_weight`'s result."""
    terms = problem.inputs // problem.groups
    if problem.activation != "int8":
        return (problem.taps, terms, problem.outputs), "float32"
    words = 1 if problem.is_depthwise else terms // per_word(problem)
    return (problem.taps, words, problem.outputs), "int32"


def window_kernel(problem: Convolution, sizes: WindowSizes, name: str) -> Any:
    """The PrimFunc; parameters as `Convolution` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Thread(Declared.declare(problem, weight_array(problem)), sizes).emit()
        return function.get()


class _Thread:
    """`sizes.channels` channels of `sizes.pixels` pixels of a row."""

    def __init__(self, declared: Declared, sizes: WindowSizes) -> None:
        """Launch, and find the thread's pixels and channels."""
        problem, extents = declared.problem, declared.extents
        self.declared, self.problem, self.sizes = declared, problem, sizes
        self.down, self.across = declared.output_size()
        groups = problem.outputs // sizes.channels
        strips = _strips(self.across, sizes.pixels)
        self.items = self.down * strips * groups
        blocks = (self.items + (sizes.threads - 1)) // sizes.threads
        block, thread = launch(extents.batch * long(blocks), sizes.threads)
        self.image = held(long(block // blocks))
        self.item = held(block % blocks * sizes.threads + thread)
        self.channel = held(self.item % groups * sizes.channels)
        rest = held(self.item // groups)
        self.row, self.column = held(rest // strips), held(rest % strips * sizes.pixels)
        self.height, self.width = declared.input_size()
        self.flat = T.decl_buffer(
            (extents.batch * extents.height * extents.width * problem.inputs,),
            problem.activation,
            data=declared.x.data,
        )
        shape = declared.weight.ty.shape
        self.weights = T.decl_buffer(
            (shape[0] * shape[1] * shape[2],), declared.weight.ty.dtype, data=declared.weight.data
        )
        self.integers = problem.activation == "int8"
        self.sums = T.alloc_buffer(
            (sizes.channels * sizes.pixels,), problem.accumulator, scope="local"
        )

    def emit(self) -> None:
        """Emit the kernel's body."""
        problem, sizes = self.problem, self.sizes
        with T.If(self.item < self.items), T.Then():
            for place in range(sizes.channels * sizes.pixels):
                T.buffer_store(self.sums, tirx.const(0, problem.accumulator), [place])
            first = held(self.column * problem.strides[1] - problem.padding[1])
            y0 = held(self.row * problem.strides[0] - problem.padding[0])
            with T.serial(problem.kernel[0]) as r:
                y = held(y0 + r * problem.dilation[0])
                there = held(tirx.Cast("int32", tirx.all(y >= 0, y < self.height)))
                start = held(self.declared.pixel(self.image, y, first) + long(self._input()))
                steps = self._steps()
                if steps == 1:
                    self._row(r, tirx.const(0, "int32"), there, start, first)
                else:
                    with T.serial(steps) as step:
                        self._row(r, step, there, start, first)
            self._store()

    def _input(self) -> Any:
        """The first channel that is read."""
        problem = self.problem
        if problem.is_depthwise:
            return self.channel
        each = problem.outputs // problem.groups
        return self.channel // each * (problem.inputs // problem.groups)

    def _steps(self) -> int:
        """Words of channels in a tap."""
        problem = self.problem
        return 1 if problem.is_depthwise else problem.inputs // problem.groups // per_word(problem)

    def _row(self, r: Any, step: Any, there: Any, start: Any, first: Any) -> None:
        """Add the products of a row of the window with one word of channels."""
        problem, sizes = self.problem, self.sizes
        loaded: dict[int, list[Any]] = {}
        per = per_word(problem)
        for s in range(problem.kernel[1]):
            tap = held(r * problem.kernel[1] + s)
            weights = self._weights(tap, step)
            for p in range(sizes.pixels):
                at = p * problem.strides[1] + s * problem.dilation[1]
                if at not in loaded:
                    x = held(first + at)
                    inside = tirx.all(there != 0, x >= 0, x < self.width)
                    place = start + long(step * per + at * problem.inputs)
                    loaded[at] = self._read(place, inside)
                for v in range(sizes.channels):
                    self._add(p * sizes.channels + v, v, loaded[at], weights)

    def _weights(self, tap: Any, step: Any) -> list[Any]:
        """By term of the word, if there are several, and output channel."""
        sizes, problem = self.sizes, self.problem
        shape = [int(size) for size in self.declared.weight.ty.shape]
        terms = 1 if self.integers or problem.is_depthwise else per_word(problem)
        found = []
        for term in range(terms):
            row = tap * shape[1] + step * terms + term
            place = held(row * shape[2] + self.channel)
            words = T.alloc_buffer((sizes.channels,), "uint32", scope="local")
            cells = [words[v] for v in range(sizes.channels)]
            address = T.address_of(self.weights[place])
            _load(cells, address, address, tirx.const(True, "bool"))
            kind = "int32" if self.integers else "float32"
            found += [tirx.reinterpret(kind, cell) for cell in cells]
        return found

    def _read(self, place: Any, inside: Any) -> list[Any]:
        """Channels from a place on: words of bytes, or numbers."""
        problem = self.problem
        source = T.address_of(self.flat[place])
        filling = T.address_of(self.declared.filling[0])
        if not reads_words(problem):
            return [held(_element(problem.activation, source, filling, inside))]
        count = self.sizes.channels // per_word(problem) if problem.is_depthwise else 1
        words = T.alloc_buffer((count,), "uint32", scope="local")
        cells = [words[i] for i in range(count)]
        _load(cells, source, filling, inside)
        if self.integers:
            return cells
        return [held(_half(problem.activation, word, place)) for word in cells for place in (0, 1)]

    def _add(self, place: int, v: int, read: list[Any], weights: list[Any]) -> None:
        """One result's products."""
        problem, total = self.problem, self.sums[place]
        if self.integers:
            word = read[v // per_word(problem)] if problem.is_depthwise else read[0]
            word = tirx.reinterpret("int32", word)
            T.buffer_store(self.sums, _dot(word, weights[v], total), [place])
        elif problem.is_depthwise:
            T.buffer_store(self.sums, total + read[v] * weights[v], [place])
        else:
            for term, value in enumerate(read):
                total = total + value * weights[term * self.sizes.channels + v]
            T.buffer_store(self.sums, total, [place])

    def _store(self) -> None:
        sizes = self.sizes
        image = self.image * long(self.down) + long(self.row)
        row = held(image * long(self.across) + long(self.column))
        for p in range(sizes.pixels):
            with T.If(self.column + p < self.across), T.Then():
                for v in range(sizes.channels):
                    column = long(self.channel + v)
                    total = self.sums[p * sizes.channels + v]
                    value = self.declared.value(total, row + p, column)
                    T.buffer_store(self.declared.y, value, [row + p, column])


def _strips(across: Any, pixels: int) -> Any:
    """How many strips of this many pixels a row has."""
    return (across + (pixels - 1)) // pixels


def _load(words: list[Any], source: Any, filling: Any, there: Any) -> None:
    """Read one, two or four words that follow each other, from one of two places."""
    count = len(words)
    name = f"fewbits_read_{count}"
    kind = {1: "unsigned", 2: "uint2", 4: "uint4"}[count]
    results = ", ".join(f"unsigned& d{i}" for i in range(count))
    fields = ["v"] if count == 1 else [f"v.{field}" for field in "xyzw"[:count]]
    stores = " ".join(f"d{i} = {field};" for i, field in enumerate(fields))
    code = f"""
__device__ __forceinline__ void {name}(
    {results}, const void* source, const void* filling, bool there) {{
  {kind} v = *(const {kind}*)(there ? source : filling);
  {stores}
}}
"""
    T.evaluate(cuda_func_call(name, *words, source, filling, there, source_code=code))


def _element(dtype: str, source: Any, filling: Any, there: Any) -> Any:
    """One element: a byte as the lowest of a word, or a half as float32."""
    name = f"fewbits_element_{dtype}"
    place = "(there ? source : filling)"
    if dtype == "int8":
        result, body = "unsigned", f"return *(const unsigned char*){place};"
    else:
        result = "float"
        body = (
            f"unsigned short bits = *(const unsigned short*){place}; float value; "
            f'asm("{_WIDEN[dtype]}" : "=f"(value) : "h"(bits)); return value;'
        )
    code = f"""
__device__ __forceinline__ {result} {name}(const void* source, const void* filling, bool there) {{
  {body}
}}
"""
    kind = {"unsigned": "uint32", "float": "float32"}[result]
    return cuda_func_call(name, source, filling, there, source_code=code, return_type=kind)


#: PTX from 16 bits to float32: bfloat16 is its upper half.
_WIDEN = {
    "float16": "cvt.f32.f16 %0, %1;",
    "bfloat16": "{.reg .b16 z; mov.b16 z, 0; mov.b32 %0, {z, %1};}",
}


def _half(dtype: str, word: Any, place: int) -> Any:
    """The lower (0) or upper (1) of two halves as float32."""
    name = f"fewbits_widen_{dtype}_{place}"
    shift = " >> 16" if place else ""
    code = f"""
__device__ __forceinline__ float {name}(unsigned word) {{
  unsigned short bits = (unsigned short)(word{shift});
  float value;
  asm("{_WIDEN[dtype]}" : "=f"(value) : "h"(bits));
  return value;
}}
"""
    return cuda_func_call(name, word, source_code=code, return_type="float32")


def _dot(left: Any, right: Any, total: Any) -> Any:
    """``total`` plus the products of four signed bytes with four others."""
    code = """
__device__ __forceinline__ int fewbits_dp4a(int left, int right, int total) {
  return __dp4a(left, right, total);
}
"""
    return cuda_func_call("fewbits_dp4a", left, right, total, source_code=code, return_type="int32")
