"""A kernel's meaning on the host: blocks and threads become loops, barriers end them.

A kernel between two barriers is what each thread does on its own, so threads may run one after
another up to a barrier. The replay splits loops over the threads there (and at shuffles, where a
warp exchanges registers), gives each thread its own copy of its registers, and leaves a function
that any CPU runs. It says nothing about speed or about layouts of tensor cores, but all about
indices, guards, tails, reductions and their order.

A barrier that is missing shows as well: threads run upwards or downwards, and a kernel whose result
depends on which of them goes first gives two results.

Kernels with explicit loops over threads can be replayed (the form of ``schedules/cuda/general``);
those still made of blocks cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import prim

from ..stages.program import loads, substitute
from .meetings import SHUFFLES, flat, is_barrier, is_shuffle, meets, scope, sequence

_WARP = 32
_ZERO = prim.IntImm("int64", 0)


def replay_module(module: ir.IRModule, backwards: bool = False) -> ir.IRModule:
    """The module with every kernel as a function of the host; see `replay`."""
    result = ir.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for variable, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc):
            result.update_func(variable, replay(function, backwards))
    return result


def replay(function: tirx.PrimFunc, backwards: bool = False) -> tirx.PrimFunc:
    """A function of the host that computes what a function with kernels does.

    Args:
        function: its kernels are nests of loops bound to ``blockIdx`` and ``threadIdx``; functions
            without them come back as they are.
        backwards: let the last thread go first.

    Raises:
        ValueError: a barrier or a shuffle where not all threads arrive, or blocks inside a kernel.
    """
    body = function.body
    if not isinstance(body, s_tir.SBlockRealize):
        raise ValueError("the function has no root block")
    root = body.block
    replayed = _serial_blocks(root.body, backwards)
    block = s_tir.SBlock([], [], [], "root", replayed, alloc_buffers=list(root.alloc_buffers))
    return function.with_body(s_tir.SBlockRealize([], True, block))


def _serial_blocks(statement: Any, backwards: bool) -> Any:
    """Statements of the host; loops over blocks and threads are replaced."""
    if isinstance(statement, tirx.SeqStmt):
        return sequence([_serial_blocks(each, backwards) for each in statement.seq])
    if isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.THREAD_BINDING:
        return _grid(statement, backwards)
    if isinstance(statement, tirx.For):
        return _loop(statement, _serial_blocks(statement.body, backwards))
    if isinstance(statement, tirx.IfThenElse):
        other = statement.else_case
        return tirx.IfThenElse(
            statement.condition,
            _serial_blocks(statement.then_case, backwards),
            None if other is None else _serial_blocks(other, backwards),
        )
    return statement


def _grid(statement: Any, backwards: bool) -> Any:
    loops: list[tirx.For] = []
    while isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.THREAD_BINDING:
        loops.append(statement)
        statement = statement.body
    blocks = [loop for loop in loops if loop.thread_binding.thread_tag.startswith("blockIdx")]
    threads = [loop for loop in loops if loop.thread_binding.thread_tag.startswith("threadIdx")]
    threads.sort(key=lambda loop: loop.thread_binding.thread_tag, reverse=True)
    body = _Threads(threads, backwards).run(statement)
    for loop in reversed(blocks):
        body = _loop(loop, body)
    return body


def _loop(loop: tirx.For, body: Any) -> Any:
    return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, body)


class _Threads:
    """The threads of one block: the slowest axis first, as ``threadIdx.z``, ``y``, ``x``."""

    def __init__(self, loops: Sequence[tirx.For], backwards: bool) -> None:
        self.loops = loops
        self.variables = [loop.loop_var for loop in loops]
        self.extents = [int(loop.extent.value) for loop in loops]
        self.backwards = backwards
        self.allocations: list[Any] = []
        self.copies: dict[Any, Any] = {}
        self.bound: dict[Any, Any] = {}
        self.orders: dict[int, Any] = {}

    def run(self, statement: Any) -> Any:
        """The statement for all threads, with its buffers in front."""
        phases = self._phases(statement)
        return tirx.SeqStmt([*self.allocations, *phases]) if self.allocations else sequence(phases)

    def _phases(self, statement: Any) -> list[Any]:
        """Statements, each to be run by all threads before the next one is."""
        done: list[Any] = []
        waiting: list[Any] = []

        def finish() -> None:
            if waiting:
                done.append(self._for_all(sequence(waiting)))
                waiting.clear()

        for each in flat(statement):
            if is_barrier(each):
                finish()
            elif is_shuffle(each):
                finish()
                done.append(self._for_all(self._exchange(self._own(each))))
            elif isinstance(each, tirx.AllocBuffer):
                self._allocate(each)
            elif isinstance(each, tirx.Bind):
                waiting.extend(self._bind(each))
            elif meets(each):
                finish()
                done.append(self._together(each))
            else:
                waiting.append(self._alone(each))
        finish()
        return done

    def _together(self, statement: Any) -> Any:
        """A loop or condition around a barrier: it is the same for all threads."""
        if isinstance(statement, tirx.For):
            if self._differs(statement.min) or self._differs(statement.extent):
                raise ValueError("a barrier in a loop whose length differs between threads")
            return _loop(self._own_bounds(statement), sequence(self._phases(statement.body)))
        if isinstance(statement, tirx.IfThenElse) and statement.else_case is None:
            if self._differs(statement.condition):
                raise ValueError("a barrier that only some threads reach")
            condition = self._own(statement.condition)
            return tirx.IfThenElse(condition, sequence(self._phases(statement.then_case)), None)
        raise ValueError(f"a barrier inside {type(statement).__name__}")

    def _alone(self, statement: Any) -> Any:
        """A statement without barriers: loops become serial, buffers the thread's own."""
        if isinstance(statement, s_tir.SBlockRealize):
            raise ValueError("a kernel made of blocks")
        if isinstance(statement, tirx.SeqStmt):
            parts: list[Any] = []
            for each in statement.seq:
                if isinstance(each, tirx.AllocBuffer):
                    self._allocate(each)
                elif isinstance(each, tirx.Bind):
                    parts.extend(self._bind(each))
                else:
                    parts.append(self._alone(each))
            return sequence(parts)
        if isinstance(statement, tirx.For):
            return _loop(self._own_bounds(statement), self._alone(statement.body))
        if isinstance(statement, tirx.IfThenElse):
            other = statement.else_case
            condition = self._own(statement.condition)
            then = self._alone(statement.then_case)
            return tirx.IfThenElse(condition, then, None if other is None else self._alone(other))
        if isinstance(statement, (tirx.AllocBuffer, tirx.Bind)):
            return self._alone(tirx.SeqStmt([statement, tirx.Evaluate(0)]))
        return self._own(statement)

    def _own_bounds(self, loop: tirx.For) -> tirx.For:
        low, extent = self._own(loop.min), self._own(loop.extent)
        return tirx.For(loop.loop_var, low, extent, tirx.ForKind.SERIAL, tirx.Evaluate(0))

    def _bind(self, statement: tirx.Bind) -> list[Any]:
        """A value with a name: written out where it is used, or kept if it reads memory."""
        value = self._own(statement.value)
        if not loads(value):
            self.bound[statement.var] = value
            return []
        buffer = tirx.decl_buffer((1,), str(value.ty.dtype), name="kept", scope="local")
        copy = self._copy(buffer)
        self.bound[statement.var] = tirx.BufferLoad(copy, [*self.variables, _ZERO])
        return [tirx.BufferStore(copy, value, [*self.variables, _ZERO])]

    def _allocate(self, statement: tirx.AllocBuffer) -> None:
        buffer = statement.buffer
        if scope(buffer) == "local":
            self._copy(buffer)
            return
        shared = tirx.decl_buffer(buffer.ty.shape, str(buffer.ty.dtype), name="shared")
        self.allocations.append(tirx.AllocBuffer(shared, {}))
        self.copies[buffer] = (shared, False)

    def _copy(self, buffer: Any) -> Any:
        """A buffer with a place for each thread."""
        shape = [*self.extents, *buffer.ty.shape]
        copy = tirx.decl_buffer(shape, str(buffer.ty.dtype), name="own")
        self.allocations.append(tirx.AllocBuffer(copy, {}))
        self.copies[buffer] = (copy, True)
        return copy

    def _own(self, node: Any) -> Any:
        """The expression or statement with bound values and this thread's buffers."""

        def variable(var: Any) -> Any:
            return self.bound.get(var, var)

        def load(access: ir.TensorLoad) -> Any:
            if access.source not in self.copies:
                return access
            copy, private = self.copies[access.source]
            return tirx.BufferLoad(copy, [*(self.variables if private else []), *access.indices])

        def store(statement: tirx.BufferStore) -> Any:
            if statement.buffer not in self.copies:
                return statement
            copy, private = self.copies[statement.buffer]
            at = [*(self.variables if private else []), *statement.indices]
            return tirx.BufferStore(copy, statement.value, at)

        return tvm_ffi.structural_map(
            node, [(ir.Var, variable), (ir.TensorLoad, load), (tirx.BufferStore, store)]
        )

    def _exchange(self, store: tirx.BufferStore) -> Any:
        """A store of what another lane of the warp holds."""
        call = store.value
        _, value, lane, width, _ = call.args
        linear: Any = _ZERO
        for variable, extent in zip(self.variables, self.extents, strict=True):
            linear = linear * extent + variable
        name = call.op.name.removeprefix(SHUFFLES)
        own = tirx.floormod(linear, _WARP)
        lane, width = tirx.Cast("int64", lane), tirx.Cast("int64", width)
        first = own - tirx.floormod(own, width)
        if name == "_xor":
            other = tirx.bitwise_xor(own, lane)
        elif name == "":
            other = first + tirx.floormod(lane, width)
        else:
            other = own - lane if name == "_up" else own + lane
        inside = tirx.all(other >= first, other < first + width)
        partner = linear - own + tirx.Select(inside, other, own)
        places: dict[Any, Any] = {}
        for variable, extent in zip(reversed(self.variables), reversed(self.extents), strict=True):
            places[variable] = tirx.floormod(partner, extent)
            partner = tirx.floordiv(partner, extent)
        there = substitute(value, places)
        return tirx.BufferStore(store.buffer, there, list(store.indices))

    def _for_all(self, statement: Any) -> Any:
        """The statement for each thread, first to last or last to first."""
        for loop, extent in reversed(list(zip(self.loops, self.extents, strict=True))):
            dtype = str(loop.loop_var.ty.dtype)
            thread, turn = tirx.Var("thread", dtype), tirx.Var("turn", dtype)
            statement = substitute(statement, {loop.loop_var: thread})
            if self.backwards:
                number = tirx.BufferLoad(self._order(extent), [turn])
                statement = tirx.SeqStmt([tirx.Bind(thread, number), statement])
                thread = turn
            statement = tirx.For(thread, loop.min, loop.extent, tirx.ForKind.SERIAL, statement)
        return statement

    def _order(self, extent: int) -> Any:
        """The threads' numbers, last first.

        A table: TVM lowers remainders of indices with a negative factor wrongly.
        """
        if extent not in self.orders:
            table = tirx.decl_buffer((extent,), "int64", name="order")
            turn = tirx.Var("turn", "int64")
            fill = tirx.BufferStore(table, prim.IntImm("int64", extent - 1) - turn, [turn])
            size = prim.IntImm("int64", extent)
            self.allocations.append(tirx.AllocBuffer(table, {}))
            self.allocations.append(tirx.For(turn, _ZERO, size, tirx.ForKind.SERIAL, fill))
            self.orders[extent] = table
        return self.orders[extent]

    def _differs(self, expression: Any) -> bool:
        """Whether an expression may have another value in another thread."""
        own = self._own(expression)
        found: list[bool] = []

        def visit(var: Any) -> None:
            if any(var.same_as(thread) for thread in self.variables):
                found.append(True)

        tvm_ffi.structural_walk(own, [(ir.Var, visit)])
        return bool(found)
