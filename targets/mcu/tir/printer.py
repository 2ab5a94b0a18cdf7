"""A lowered PrimFunc as one C function.

TVM has a C printer (``target.build.c``), but its code assumes a hosted TVM run time, allocates
large arrays on the stack, takes 64-bit indices and inherits C's undefined behaviour. Firmware needs
none of that: here intermediates become places in the caller's scratch memory, and `expressions.py`
keeps the arithmetic defined.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import re
from collections.abc import Callable

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.ir import prim

from . import arithmetic, bits, calls, conversions, logic  # noqa: F401  (they print expressions)
from .expressions import ExpressionPrinter
from .interval import Interval
from .text import C_TYPES, INT32

#: Intermediates up to this many bytes live on the stack, larger ones in scratch memory.
STACK_BYTES = 256
_KEYWORDS = frozenset(
    keyword
    for line in (
        "auto break case char const continue default do double else enum extern float for goto if",
        "inline int long register restrict return short signed sizeof static struct switch",
        "typedef union unsigned void volatile while scratch",
    )
    for keyword in line.split()
)
_WORD = re.compile(r"[A-Za-z_]\w*")
#: A line that declares or sets a variable: ``int32_t a;``, ``const int32_t a = ...``, ``a = ...``.
_WRITTEN = re.compile(r"\s*(?:const )?(?:\w+ )?(\w+)(?:;| = )")
_DTYPE_BYTES = {name: int(re.sub(r"\D", "", c) or 32) // 8 for name, c in C_TYPES.items()}
_DTYPE_BYTES["float64"] = 8


@dataclasses.dataclass(frozen=True)
class Function:
    """A printed function.

    Attributes:
        name: its C name, a hash of the text, so that equal functions have equal names.
        source: the definition.
        scratch: bytes of scratch memory; where there are any, the last parameter is `scratch`.
    """

    name: str
    source: str
    scratch: int


def print_function(function: tirx.PrimFunc, outputs: int, in_place: bool, layer: str) -> Function:
    """Print a lowered function whose last `outputs` parameters are results.

    Args:
        function: flat buffers, no blocks (see `lowering.py`).
        outputs: how many parameters, counted from the end, are written.
        in_place: the first output may be the memory of an input, so pointers are not `restrict`.
        layer: the model's layer, for errors.

    Raises:
        FewbitsError: ``no-kernel`` for TIR that has no C form.
    """
    return _StatementPrinter(layer).function(function, outputs, in_place)


class _StatementPrinter:
    def __init__(self, layer: str) -> None:
        self.expressions = ExpressionPrinter(layer)
        self.lines: list[str] = []
        self.depth = 1
        self._taken: set[str] = set(_KEYWORDS)
        self._offsets: dict[ir.Var, int] = {}
        self._locals: set[str] = set()
        self._printers: dict[type, Callable[..., None]] = {
            tirx.SeqStmt: self._sequence,
            tirx.For: self._for,
            tirx.While: self._while,
            tirx.BufferStore: self._store,
            tirx.AllocBuffer: self._allocate,
            tirx.DeclBuffer: self._declare,
            tirx.Bind: self._bind,
            tirx.IfThenElse: self._if,
            tirx.AttrStmt: self._attribute,
            tirx.Evaluate: self._evaluate,
            tirx.AssertStmt: self._assert,
        }

    def function(self, function: tirx.PrimFunc, outputs: int, in_place: bool) -> Function:
        restrict = "" if in_place else "FB_RESTRICT "
        written = len(function.params) - outputs
        parameters = []
        for index, parameter in enumerate(function.params):
            name = self._name(f"x{index}" if index < written else f"y{index - written}")
            self.expressions.names[parameter] = name
            c_type = C_TYPES[self._element(parameter)]
            const = "const " if index < written else ""
            parameters.append(f"{const}{c_type} *{restrict}{name}")
        self._offsets, scratch = plan_scratch(function.body)
        if scratch:
            parameters.append(f"void *{restrict}scratch")
        self._statement(function.body)
        names = self._drop_unused()
        unused = [
            f"    (void){n};" for p in function.params if not names[n := self.expressions.names[p]]
        ]
        body = "\n".join([*unused, *self.lines])
        text = f"({', '.join(parameters)}) {{\n{body}\n}}\n"
        name = f"fb_tir_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return Function(name, f"static void {name}{text}", scratch)

    def _element(self, buffer: ir.Var) -> str:
        dtype = str(buffer.ty.dtype)
        if dtype not in C_TYPES:
            raise self.expressions.refusal(f"{dtype} tensors")
        return dtype

    def _name(self, wanted: str) -> str:
        base = re.sub(r"\W", "_", wanted, flags=re.ASCII) or "v"
        if base[0].isdigit():
            base = f"v{base}"
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    def _line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def _statement(self, statement: tirx.Stmt) -> None:
        printer = self._printers.get(type(statement))
        if printer is None:
            raise self.expressions.refusal(f"statement {type(statement).__name__}")
        printer(statement)

    def _block(self, statement: tirx.Stmt) -> None:
        self.depth += 1
        self._statement(statement)
        self.depth -= 1

    def _sequence(self, statement: tirx.SeqStmt) -> None:
        for one in statement.seq:
            self._statement(one)

    def _for(self, loop: tirx.For) -> None:
        if loop.kind in (tirx.ForKind.VECTORIZED, tirx.ForKind.THREAD_BINDING):
            raise self.expressions.refusal("vector and device loops")
        variable = loop.loop_var
        name = self._name(variable.name)
        first = self.expressions(loop.min)
        # Loop bounds from `guards.py` cancel here; an end before the start is an empty loop.
        end = self.expressions(sym.Analyzer().simplify(loop.min + loop.extent))
        step = 1 if loop.step is None else int(loop.step)
        self.expressions.names[variable] = name
        last = max(end.range.high - 1, first.range.low)
        self.expressions.ranges[variable] = Interval(first.range.low, last)
        dtype = self.expressions.dtype(variable)
        if self.expressions.ranges[variable].inside(INT32):
            dtype = self.expressions.types[variable] = "int32"
        c_type = C_TYPES[dtype]
        advance = f"{name}++" if step == 1 else f"{name} += {step}"
        self._line(f"for ({c_type} {name} = {first.code}; {name} < {end.code}; {advance}) {{")
        self._block(loop.body)
        self._line("}")

    def _while(self, loop: tirx.While) -> None:
        self._line(f"while ({self.expressions(loop.condition).code}) {{")
        self._block(loop.body)
        self._line("}")

    def _store(self, store: tirx.BufferStore) -> None:
        self._element(store.buffer)
        value = self.expressions(store.value)
        place = self.expressions.place(store.buffer, list(store.indices))
        self._line(f"{place} = {value.code};")

    def _allocate(self, statement: tirx.AllocBuffer) -> None:
        buffer = statement.buffer
        dtype, elements = self._element(buffer), _elements(buffer)
        name = self._name(buffer.name)
        self.expressions.names[buffer] = name
        c_type = C_TYPES[dtype]
        if elements == 1:
            self.expressions.scalars.add(buffer)
            self._locals.add(name)
            self._line(f"{c_type} {name};")
        elif buffer in self._offsets:
            offset = self._offsets[buffer]
            place = f"(char *)scratch + {offset}" if offset else "scratch"
            cast = f"({c_type} *)(void *)({place})" if offset else f"({c_type} *)scratch"
            self._line(f"{c_type} *const {name} = {cast};")
        else:
            self._line(f"{c_type} {name}[{elements}];")

    def _declare(self, statement: tirx.DeclBuffer) -> None:
        source = statement.data
        if not (isinstance(source, ir.Call) and source.op.name == "tirx.buffer_data"):
            raise self.expressions.refusal("a view of unknown memory")
        original = source.args[0]
        if str(original.ty.dtype) != str(statement.buffer.ty.dtype):
            raise self.expressions.refusal("a view with another dtype")
        self.expressions.names[statement.buffer] = self.expressions.names[original]
        if original in self.expressions.scalars:
            self.expressions.scalars.add(statement.buffer)

    def _bind(self, statement: tirx.Bind) -> None:
        value = self.expressions(statement.value)
        name = self._name(statement.var.name)
        self.expressions.names[statement.var] = name
        self.expressions.ranges[statement.var] = value.range
        self.expressions.types[statement.var] = value.dtype
        self._locals.add(name)
        self._line(f"const {C_TYPES[value.dtype]} {name} = {value.code};")

    def _drop_unused(self) -> collections.Counter[str]:
        """Remove what nothing reads: values that simplification left over, accumulators of which
        only a companion is wanted (an index, not its maximum). How often each name is left."""
        while True:
            names = collections.Counter(word for line in self.lines for word in _WORD.findall(line))
            written = collections.Counter(
                match[1] for line in self.lines if (match := _WRITTEN.match(line))
            )
            idle = {name for name in self._locals if names[name] == written[name] > 0}
            if not idle:
                return names
            self.lines = [
                line
                for line in self.lines
                if not ((match := _WRITTEN.match(line)) and match[1] in idle)
            ]

    def _if(self, statement: tirx.IfThenElse) -> None:
        condition = self.expressions(statement.condition)
        if condition.code in ("0", "1"):
            taken = statement.then_case if condition.code == "1" else statement.else_case
            if taken is not None:
                self._statement(taken)
            return
        self._line(f"if ({condition.code}) {{")
        self._block(statement.then_case)
        if statement.else_case is not None:
            self._line("} else {")
            self._block(statement.else_case)
        self._line("}")

    def _attribute(self, statement: tirx.AttrStmt) -> None:
        self._statement(statement.body)

    def _evaluate(self, statement: tirx.Evaluate) -> None:
        if isinstance(statement.value, prim.IntImm):
            return
        operator = getattr(getattr(statement.value, "op", None), "name", "a call")
        raise self.expressions.refusal(str(operator))

    def _assert(self, statement: tirx.AssertStmt) -> None:
        if self.expressions(statement.condition).code != "1":
            raise self.expressions.refusal("a run-time assertion")


def _elements(buffer: ir.Var) -> int:
    return math.prod(int(extent) for extent in buffer.ty.shape)


def _bytes(buffer: ir.Var) -> int:
    return _elements(buffer) * _DTYPE_BYTES[str(buffer.ty.dtype)]


def plan_scratch(body: tirx.Stmt) -> tuple[dict[ir.Var, int], int]:
    """Offsets of the large intermediates in scratch memory, and its size.

    Buffers share memory where the outermost statements that touch them do not overlap in time.
    """
    statements = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    spans: dict[ir.Var, list[int]] = {}
    views: dict[ir.Var, ir.Var] = {}
    for time, statement in enumerate(statements):

        def allocated(node: tirx.AllocBuffer, time: int = time) -> None:
            if _bytes(node.buffer) > STACK_BYTES:
                spans[node.buffer] = [time, time]

        def declared(node: tirx.DeclBuffer) -> None:
            views[node.buffer] = node.data.args[0]

        def touched(node: ir.Var, time: int = time) -> None:
            buffer = views.get(node, node)
            if buffer in spans:
                spans[buffer][1] = time

        tvm_ffi.structural_walk(
            statement,
            [(tirx.AllocBuffer, allocated), (tirx.DeclBuffer, declared), (ir.Var, touched)],
        )
    offsets: dict[ir.Var, int] = {}
    total = 0
    for buffer in sorted(spans, key=_bytes, reverse=True):
        first, last = spans[buffer]
        rivals = sorted(
            (offsets[other], _bytes(other))
            for other in offsets
            if spans[other][0] <= last and first <= spans[other][1]
        )
        offset = 0
        for start, size in rivals:
            if offset + _bytes(buffer) <= start:
                break
            offset = max(offset, -(-(start + size) // 8) * 8)
        offsets[buffer] = offset
        total = max(total, offset + _bytes(buffer))
    return offsets, total
