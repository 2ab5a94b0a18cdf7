"""TIR expressions as C99 without undefined behaviour.

TIR wraps around where C does not define signed overflow, and TVM's own C back end prints it as it
stands. Here every expression is printed together with its bounds (`interval.py`): arithmetic that
provably fits is printed plainly, the rest through unsigned types or the helpers of ``tir.h``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from tvm import ir
from tvm.ir import prim

from ....errors import FewbitsError
from . import interval as iv
from .interval import Interval

C_TYPES = {
    "bool": "uint8_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "uint64": "uint64_t",
    "float32": "float",
    "float64": "double",
}

# C's precedence levels, tightest first; only as many as are told apart below.
ATOM, UNARY, PRODUCT, SUM, SHIFT, RELATION, AND, OR, TERNARY = range(9)


@dataclasses.dataclass(frozen=True)
class Text:
    """A printed expression: how tightly it binds, its C type, and what it can be.

    The C type (as a dtype's name) is the expression's own, but int32 where an int64 expression is
    known to fit: indices are 64 bits wide in TIR, and 32-bit cores should not pay for that.
    """

    code: str
    precedence: int
    dtype: str
    range: Interval

    def within(self, precedence: int) -> str:
        """The code, in parentheses unless it binds at least as tightly as asked."""
        return self.code if self.precedence <= precedence else f"({self.code})"


INT32 = iv.of_dtype("int32")
#: Through these an index is bounded by the buffer it points into, operand by operand.
_INDEX_ARITHMETIC = frozenset(
    {prim.Add, prim.Sub, prim.Mul, prim.Cast, prim.Select, prim.Max, prim.Min}
    | {prim.IntImm, ir.Var, ir.TensorLoad, ir.Call}
)
#: Functions of ``float_math.h`` for TIR's calls on float32.
MATH = {
    **{
        name: f"fb_{name}f"
        for name in (
            "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos",
            "cosh", "erf", "exp", "exp10", "exp2", "fabs", "floor", "fmod", "log", "log10",
            "log1p", "log2", "nearbyint", "pow", "round", "sin", "sinh", "sqrt", "tan", "tanh",
            "trunc",
        )
    },
    "rsqrt": "fb_rsqrtf",
    "sigmoid": "fb_sigmoidf",
}  # fmt: skip
#: Those of them that keep a value between the integers around it.
ROUNDINGS = frozenset({"ceil", "floor", "nearbyint", "round", "trunc"})
#: Functions that exist for float64 as well.
DOUBLE_MATH = ROUNDINGS | {"exp", "fabs", "fmod", "log", "pow", "sqrt"}
#: Functions of ``isa.h`` for arithmetic modulo 2^32.
_WRAPPING = {"+": "fb_add", "-": "fb_sub", "*": "fb_mul"}
TESTS = {"isnan": "fb_isnan", "isinf": "fb_isinf", "isfinite": "fb_isfinite"}


class ExpressionPrinter:
    """Prints expressions; the statement printer tells it names and ranges.

    Attributes:
        names: C names of variables and buffers, by TIR variable.
        types: C types of variables, where they are not the TIR ones.
        scalars: buffers of one element, kept in a C variable.
        ranges: bounds of variables.
        layer: the model's layer, for errors.
    """

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.names: dict[ir.Var, str] = {}
        self.types: dict[ir.Var, str] = {}
        self._let: dict[ir.Var, Text] = {}
        self._index_bound: int | None = None
        self.scalars: set[ir.Var] = set()
        self.ranges: dict[ir.Var, Interval] = {}
        self._printers: dict[type, Callable[..., Text]] = {
            prim.IntImm: self._integer,
            prim.FloatImm: self._float,
            ir.Var: self._variable,
            ir.TensorLoad: self._load,
            ir.Call: self._call,
            prim.Cast: self._cast,
            prim.Add: self._add,
            prim.Sub: self._subtract,
            prim.Mul: self._multiply,
            prim.Div: self._divide,
            prim.Mod: self._remainder,
            prim.FloorDiv: self._floor_divide,
            prim.FloorMod: self._floor_remainder,
            prim.Min: self._minimum,
            prim.Max: self._maximum,
            prim.EQ: self._compare,
            prim.NE: self._compare,
            prim.LT: self._compare,
            prim.LE: self._compare,
            prim.GT: self._compare,
            prim.GE: self._compare,
            prim.And: self._and,
            prim.Or: self._or,
            prim.Not: self._not,
            prim.Select: self._select,
            prim.Let: self._inline,
            prim.LShift: self._shift_left,
            prim.RShift: self._shift_right,
            prim.BitwiseAnd: self._bitwise,
            prim.BitwiseOr: self._bitwise,
            prim.BitwiseXor: self._bitwise,
            prim.BitwiseNot: self._bitwise_not,
        }

    def __call__(self, expression: ir.Expr) -> Text:
        """The expression in C.

        Raises:
            FewbitsError: ``no-kernel`` for what has no C form.
        """
        printer = self._printers.get(type(expression))
        if printer is None:
            raise self.refusal(f"expression {type(expression).__name__}")
        if self._index_bound is not None and type(expression) not in _INDEX_ARITHMETIC:
            bound, self._index_bound = self._index_bound, None
            text = printer(expression)
            self._index_bound = bound
            return text
        return printer(expression)

    def refusal(self, what: str) -> FewbitsError:
        """The error for something that cannot be printed."""
        return FewbitsError(
            "no-kernel",
            f"no microcontroller code can be generated for this operator: {what}",
            where=self.layer,
            hint="replace the operator, or run this part of the model on the host",
        )

    def dtype(self, expression: ir.Expr) -> str:
        """The dtype's name, if C has that type."""
        name = str(expression.ty.dtype)
        if name not in C_TYPES:
            raise self.refusal(f"{name} arithmetic")
        return name

    # Leaves.

    def literal(self, value: int, dtype: str) -> Text:
        """An integer literal of that type."""
        known = iv.constant(value)
        if dtype == "int64" and known.inside(INT32):
            dtype = "int32"
        if dtype == "int64":
            if value == -(2**63):
                return Text("INT64_MIN", ATOM, dtype, known)
            return Text(f"INT64_C({value})", ATOM, dtype, known)
        if dtype == "uint64":
            return Text(f"UINT64_C({value})", ATOM, dtype, known)
        if dtype == "int32" and value == -(2**31):
            return Text("INT32_MIN", ATOM, dtype, known)
        suffix = "u" if dtype == "uint32" else ""
        return Text(f"{value}{suffix}", ATOM if value >= 0 else UNARY, dtype, known)

    def _integer(self, expression: prim.IntImm) -> Text:
        return self.literal(int(expression.value), self.dtype(expression))

    def _float(self, expression: prim.FloatImm) -> Text:
        dtype = self.dtype(expression)
        single = dtype == "float32"
        value = float(np.float32(expression.value)) if single else float(expression.value)
        if math.isnan(value):
            return Text("FB_NAN", ATOM, dtype, iv.constant(value))
        if math.isinf(value):
            code = "FB_INFINITY" if value > 0 else "-FB_INFINITY"
        else:
            code = f"{np.float32(value)!s}f" if single else repr(value)
            if "e" in code and "." not in code:
                code = code.replace("e", ".0e")
        precedence = UNARY if code.startswith("-") else ATOM
        return Text(code, precedence, dtype, iv.constant(value))

    def _inline(self, expression: prim.Let) -> Text:
        self._let[expression.var] = self(expression.value)
        return self(expression.body)

    def _variable(self, variable: ir.Var) -> Text:
        if variable in self._let:
            return self._let[variable]
        dtype = self.dtype(variable)
        known = self.ranges.get(variable, iv.of_dtype(dtype))
        return Text(self.names[variable], ATOM, self.types.get(variable, dtype), known)

    def _load(self, load: ir.TensorLoad) -> Text:
        dtype = self.dtype(load)
        bound = self._index_bound
        text = Text(self.place(load.source, load.indices), ATOM, dtype, iv.of_dtype(dtype))
        if bound is None or dtype not in ("int32", "int64"):
            return text
        # An index beyond its buffer would read foreign memory whatever is assumed of it here.
        code, precedence = text.code, ATOM
        if dtype == "int64":
            code, precedence = f"(int32_t){text.code}", UNARY
        return Text(code, precedence, "int32", Interval(-bound, bound))

    def place(self, buffer: ir.Var, indices: list[ir.Expr]) -> str:
        """A buffer's element as something that can be read or assigned."""
        name = self.names[buffer]
        if buffer in self.scalars:
            return name
        if len(indices) != 1:
            raise self.refusal("a buffer that was not flattened")
        outer = self._index_bound
        self._index_bound = math.prod(int(extent) for extent in buffer.ty.shape)
        index = self(indices[0])
        self._index_bound = outer
        return f"{name}[{index.code}]"

    # Arithmetic.

    def _add(self, expression: prim.Add) -> Text:
        return self._arithmetic("+", SUM, expression, iv.add)

    def _subtract(self, expression: prim.Sub) -> Text:
        return self._arithmetic("-", SUM, expression, iv.subtract)

    def _multiply(self, expression: prim.Mul) -> Text:
        return self._arithmetic("*", PRODUCT, expression, iv.multiply)

    def _arithmetic(
        self,
        symbol: str,
        precedence: int,
        expression: prim.Add | prim.Sub | prim.Mul,
        bounds: Callable[[Interval, Interval], Interval],
    ) -> Text:
        dtype = self.dtype(expression)
        a, b = self(expression.a), self(expression.b)
        if dtype in iv.FLOATS:
            code = f"{a.within(precedence)} {symbol} {b.within(precedence - 1)}"
            known = iv.float_sum(a.range, b.range) if symbol == "+" else iv.of_dtype(dtype)
            return Text(code, precedence, dtype, known)
        if symbol == "+" and b.code.startswith("-") and isinstance(expression.b, prim.IntImm):
            symbol, b = "-", self.literal(-int(expression.b.value), dtype)
            bounds = iv.subtract
        known, possible = bounds(a.range, b.range), iv.of_dtype(dtype)
        if known.inside(possible):
            a, c_type = self._wide_enough(a, b, known, dtype)
            code = f"{a.within(precedence)} {symbol} {b.within(precedence - 1)}"
            return Text(code, precedence, c_type, known)
        if dtype == "int32":
            return Text(f"{_WRAPPING[symbol]}({a.code}, {b.code})", ATOM, dtype, possible)
        wide = "uint64_t" if dtype.endswith("64") else "uint32_t"
        left, right = a.within(UNARY), b.within(UNARY)
        code = f"({C_TYPES[dtype]})(({wide}){left} {symbol} ({wide}){right})"
        return Text(code, UNARY, dtype, possible)

    def _wide_enough(self, a: Text, b: Text, known: Interval, dtype: str) -> tuple[Text, str]:
        """The left operand, converted if C would compute too narrowly, and the result's C type."""
        if dtype != "int64":
            return a, dtype
        if "int64" in (a.dtype, b.dtype):
            return a, dtype
        if known.inside(INT32):
            return a, "int32"
        return Text(f"(int64_t){a.within(UNARY)}", UNARY, dtype, a.range), dtype

    def _divide(self, expression: prim.Div) -> Text:
        return self._quotient("/", "fb_tir_div", expression)

    def _remainder(self, expression: prim.Mod) -> Text:
        return self._quotient("%", "fb_tir_mod", expression)

    def _quotient(self, symbol: str, helper: str, expression: prim.Div | prim.Mod) -> Text:
        dtype = self.dtype(expression)
        a, b = self(expression.a), self(expression.b)
        if dtype in iv.FLOATS:
            if symbol == "%":
                return self._float_remainder("fb_fmodf", dtype, a, b)
            code = f"{a.within(PRODUCT)} / {b.within(UNARY)}"
            return Text(code, PRODUCT, dtype, iv.of_dtype(dtype))
        if b.range.low > 0:
            code = f"{a.within(PRODUCT)} {symbol} {b.within(UNARY)}"
            bound = max(abs(int(a.range.low)), abs(int(a.range.high)))
            known = Interval(-bound if a.range.low < 0 else 0, bound)
            return Text(code, PRODUCT, _common(dtype, a, b), known)
        return self._helper(helper, dtype, a, b)

    def _float_remainder(self, function: str, dtype: str, a: Text, b: Text) -> Text:
        if dtype == "float64":
            function = function.removesuffix("f")
        return Text(f"{function}({a.code}, {b.code})", ATOM, dtype, iv.of_dtype(dtype))

    def _floor_divide(self, expression: prim.FloorDiv) -> Text:
        dtype = self.dtype(expression)
        a, b = self(expression.a), self(expression.b)
        if dtype in iv.FLOATS:
            function = "fb_floorf" if dtype == "float32" else "fb_floor"
            code = f"{function}({a.within(PRODUCT)} / {b.within(UNARY)})"
            return Text(code, ATOM, dtype, iv.of_dtype(dtype))
        divisor = int(b.range.low)
        if b.range.low == b.range.high and divisor > 0:
            known = iv.floor_divide(a.range, divisor)
            if a.range.low >= 0:
                code = f"{a.within(PRODUCT)} / {b.within(UNARY)}"
                return Text(code, PRODUCT, _common(dtype, a, b), known)
            if divisor & (divisor - 1) == 0:
                code = f"{a.within(PRODUCT)} >> {divisor.bit_length() - 1}"
                return Text(code, SHIFT, _common(dtype, a, b), known)
        return self._helper("fb_tir_floordiv", dtype, a, b)

    def _floor_remainder(self, expression: prim.FloorMod) -> Text:
        dtype = self.dtype(expression)
        a, b = self(expression.a), self(expression.b)
        if dtype in iv.FLOATS:
            return self._float_remainder("fb_floormodf", dtype, a, b)
        divisor = int(b.range.low)
        if b.range.low == b.range.high and divisor > 0:
            known = Interval(0, divisor - 1)
            if a.range.low >= 0:
                code = f"{a.within(PRODUCT)} % {b.within(UNARY)}"
                return Text(code, PRODUCT, _common(dtype, a, b), known)
            if divisor & (divisor - 1) == 0:
                code = f"{a.within(UNARY)} & {divisor - 1}"
                return Text(code, OR, _common(dtype, a, b), known)
        return self._helper("fb_tir_floormod", dtype, a, b)

    def _minimum(self, expression: prim.Min) -> Text:
        return self._extreme("min", expression, iv.minimum)

    def _maximum(self, expression: prim.Max) -> Text:
        return self._extreme("max", expression, iv.maximum)

    def _extreme(
        self,
        name: str,
        expression: prim.Min | prim.Max,
        bounds: Callable[[Interval, Interval], Interval],
    ) -> Text:
        dtype = self.dtype(expression)
        a, b = self(expression.a), self(expression.b)
        known = bounds(a.range, b.range)
        if dtype not in iv.FLOATS:
            # Where one operand cannot matter it is dropped (C compilers warn of such comparisons).
            if known == a.range and a.range.inside(self._beaten(name, b.range)):
                return a
            if known == b.range and b.range.inside(self._beaten(name, a.range)):
                return b
            return self._helper(f"fb_tir_{name}", dtype, a, b, known)
        suffix = "f" if dtype == "float32" else "_double"
        if not b.range.nan:
            code = f"fb_{name}{suffix}_number({a.code}, {b.code})"
        elif not a.range.nan:
            code = f"fb_{name}{suffix}_number({b.code}, {a.code})"
        else:
            code = f"fb_{name}{suffix}({a.code}, {b.code})"
        return Text(code, ATOM, dtype, known)

    @staticmethod
    def _beaten(name: str, other: Interval) -> Interval:
        """The values that win against everything in `other`."""
        if name == "max":
            return Interval(other.high, math.inf)
        return Interval(-math.inf, other.low)

    def _helper(
        self,
        name: str,
        dtype: str,
        a: Text,
        b: Text,
        known: Interval | None = None,
        wide: bool = False,
    ) -> Text:
        """A call of one of the helpers, which exist for 32 and 64 bits, signed and not.

        `wide` keeps a 64-bit operation at 64 bits although its operands are known to be small.
        """
        if not wide and a.range.low > INT32.low:  # INT32_MIN / -1 needs 64 bits
            dtype = _common(dtype, a, b)
        bits, signed = iv.INTEGER_BITS[dtype]
        suffix = ("i" if signed or bits < 32 else "u") + ("64" if bits == 64 else "32")
        result = iv.of_dtype(dtype) if known is None else known
        call = Text(f"{name}_{suffix}({a.code}, {b.code})", ATOM, dtype, result)
        if bits < 32 and known is None:  # a quotient may leave a narrow type: -128 / -1
            return Text(f"({C_TYPES[dtype]}){call.code}", UNARY, dtype, result)
        return call

    # Logic.

    def _compare(self, expression: prim.CmpExpr) -> Text:
        symbol = {"EQ": "==", "NE": "!=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}[
            type(expression).__name__
        ]
        a, b = self(expression.a), self(expression.b)
        if a.dtype not in iv.FLOATS:
            decided = _decide(symbol, a.range, b.range)
            if decided is not None:
                return self.literal(int(decided), "bool")
        code = f"{a.within(SUM)} {symbol} {b.within(SUM)}"
        return Text(code, RELATION, "bool", Interval(0, 1))

    def _and(self, expression: prim.And) -> Text:
        return self._logical("&&", AND, self(expression.a), self(expression.b), absorbing="0")

    def _or(self, expression: prim.Or) -> Text:
        return self._logical("||", OR, self(expression.a), self(expression.b), absorbing="1")

    def _logical(self, symbol: str, precedence: int, a: Text, b: Text, absorbing: str) -> Text:
        for one, other in ((a, b), (b, a)):
            if one.code in ("0", "1"):
                return one if one.code == absorbing else other
        # gcc asks for parentheses around && within ||.
        left = a.code if a.precedence in (precedence, RELATION) else a.within(SHIFT)
        code = f"{left} {symbol} {b.within(RELATION)}"
        return Text(code, precedence, "bool", Interval(0, 1))

    def _not(self, expression: prim.Not) -> Text:
        return Text(f"!{self(expression.a).within(UNARY)}", UNARY, "bool", Interval(0, 1))

    def _select(self, expression: prim.Select) -> Text:
        return self._choose(expression.condition, expression.true_value, expression.false_value)

    def _choose(self, condition: ir.Expr, yes: ir.Expr, no: ir.Expr) -> Text:
        test = self(condition)
        if test.code in ("0", "1"):
            return self(yes) if test.code == "1" else self(no)
        a, b = self(yes), self(no)
        code = f"{test.within(OR)} ? {a.within(OR)} : {b.within(OR)}"
        return Text(code, TERNARY, _common(self.dtype(yes), a, b), a.range.union(b.range))

    # Bits.

    def _shift_left(self, expression: prim.LShift) -> Text:
        dtype = self.dtype(expression)
        return self._shift(dtype, self(expression.a), self(expression.b))

    def _shift(self, dtype: str, a: Text, b: Text) -> Text:
        bits, _ = iv.INTEGER_BITS[dtype]
        possible = iv.of_dtype(dtype)
        if not b.range.inside(Interval(0, bits - 1)):
            return self._helper("fb_tir_shl", dtype, a, b, wide=True)
        if b.range.low == b.range.high:
            factor = 1 << int(b.range.low)
            known = Interval(a.range.low * factor, a.range.high * factor)
            if known.inside(possible):
                a, c_type = self._wide_enough(a, a, known, dtype)
                if a.range.low >= 0:
                    code = f"{a.within(PRODUCT)} << {b.within(PRODUCT)}"
                    return Text(code, SHIFT, c_type, known)
                code = f"{a.within(PRODUCT)} * {self.literal(factor, dtype).code}"
                return Text(code, PRODUCT, c_type, known)
        if dtype == "int32":
            return Text(f"fb_shl({a.code}, {b.code})", ATOM, dtype, possible)
        unsigned = "uint64_t" if bits == 64 else "uint32_t"
        code = f"({C_TYPES[dtype]})(({unsigned}){a.within(UNARY)} << {b.within(PRODUCT)})"
        return Text(code, UNARY, dtype, possible)

    def _shift_right(self, expression: prim.RShift) -> Text:
        dtype = self.dtype(expression)
        a, b = self(expression.a), self(expression.b)
        bits, _ = iv.INTEGER_BITS[dtype]
        if not b.range.inside(Interval(0, bits - 1)):
            return self._helper("fb_tir_shr", dtype, a, b, wide=True)
        known = Interval(min(a.range.low, 0), max(a.range.high, 0))
        if b.range.low == b.range.high:
            known = iv.floor_divide(a.range, 1 << int(b.range.low))
        c_type = _common(dtype, a, a)
        if c_type == "int32" and b.range.high > 31:
            a, c_type = Text(f"(int64_t){a.within(UNARY)}", UNARY, dtype, a.range), dtype
        return Text(f"{a.within(PRODUCT)} >> {b.within(PRODUCT)}", SHIFT, c_type, known)

    def _bitwise(self, expression: prim.BinaryOpExpr) -> Text:
        symbol = {"BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^"}[type(expression).__name__]
        a, b = self(expression.a), self(expression.b)
        c_type = _common(self.dtype(expression), a, b)
        code = f"{a.within(UNARY)} {symbol} {b.within(UNARY)}"
        return Text(code, OR, c_type, iv.of_dtype(c_type))

    def _bitwise_not(self, expression: prim.BitwiseNot) -> Text:
        dtype = self.dtype(expression)
        if dtype == "bool":
            return Text(f"!{self(expression.a).within(UNARY)}", UNARY, "bool", Interval(0, 1))
        code = f"({C_TYPES[dtype]})~{self(expression.a).within(UNARY)}"
        return Text(code, UNARY, dtype, iv.of_dtype(dtype))

    # Conversions.

    def _cast(self, expression: prim.Cast) -> Text:
        dtype, value = self.dtype(expression), expression.value
        if dtype not in iv.FLOATS and str(value.ty.dtype) in iv.FLOATS:
            value = _unclamped(value, iv.of_dtype(dtype))
        return self.converted(self(value), dtype)

    def converted(self, value: Text, dtype: str) -> Text:
        """A value as another type: integers wrap, floats saturate and NaN becomes 0."""
        if dtype == value.dtype:
            return value
        if dtype == "bool":
            zero = "0.0f" if value.dtype == "float32" else "0"
            return Text(f"{value.within(SUM)} != {zero}", RELATION, dtype, Interval(0, 1))
        c_type, possible = C_TYPES[dtype], iv.of_dtype(dtype)
        if dtype in iv.FLOATS:
            if value.dtype in iv.FLOATS:
                known = value.range if dtype == "float64" else possible
            else:
                known = Interval(float(value.range.low), float(value.range.high))
            return Text(f"({c_type}){value.within(UNARY)}", UNARY, dtype, known)
        if value.dtype in iv.FLOATS:
            whole = Interval(
                value.range.low if math.isinf(value.range.low) else math.floor(value.range.low),
                value.range.high if math.isinf(value.range.high) else math.ceil(value.range.high),
                value.range.nan,
            )
            if whole.inside(possible):
                return Text(f"({c_type}){value.within(UNARY)}", UNARY, dtype, whole)
            source = "float" if value.dtype == "float32" else "double"
            return Text(f"fb_{source}_to_{dtype}({value.code})", ATOM, dtype, possible)
        if dtype == "int64" and value.range.inside(INT32):
            dtype, c_type, possible = "int32", "int32_t", INT32
            if value.dtype == dtype:
                return value
        fits = value.range.inside(possible)
        known = value.range if fits else possible
        source_bits, _ = iv.INTEGER_BITS[value.dtype]
        if fits and dtype == "int32" and source_bits < 32:  # C promotes by itself
            return Text(value.code, value.precedence, dtype, known)
        if fits and value.code.lstrip("-").isdigit():
            return self.literal(int(value.range.low), dtype)
        return Text(f"({c_type}){value.within(UNARY)}", UNARY, dtype, known)

    # Calls.

    def _call(self, call: ir.Call) -> Text:
        name = str(getattr(call.op, "name", call.op)).split(".")[-1]
        if name == "if_then_else":
            return self._choose(*call.args)
        bound, self._index_bound = self._index_bound, None
        text = self._function_call(call, name)
        self._index_bound = bound
        return text

    def _function_call(self, call: ir.Call, name: str) -> Text:
        if name in ("likely", "ret"):
            return self(call.args[0])
        if name == "shift_left":
            return self._shift(self.dtype(call), self(call.args[0]), self(call.args[1]))
        if name in TESTS:
            code = f"{TESTS[name]}({self(call.args[0]).code})"
            return Text(code, ATOM, "bool", Interval(0, 1))
        dtype = self.dtype(call)
        if name == "high_product":
            value, multiplier = (self(argument) for argument in call.args)
            code = f"fb_mulh({value.code}, {multiplier.code})"
            return Text(code, ATOM, dtype, iv.of_dtype(dtype))
        if name == "reinterpret":
            return self._reinterpret(call, dtype)
        if name in ("popcount", "clz"):
            value = self(call.args[0])
            bits = iv.INTEGER_BITS[self.dtype(call.args[0])][0]
            unsigned = "uint64_t" if bits == 64 else f"uint{bits}_t"
            code = f"fb_tir_{name}(({unsigned}){value.within(UNARY)}"
            code += ")" if name == "popcount" else f", {bits})"
            return Text(code, ATOM, dtype, Interval(0, bits))
        if dtype not in iv.FLOATS or name not in MATH:
            raise self.refusal(f"TIR's {name} of {dtype}")
        if dtype == "float64" and name not in DOUBLE_MATH:
            raise self.refusal(f"{name} in float64")
        function = MATH[name] if dtype == "float32" else f"fb_{name}"
        if name == "sqrt" and isinstance(call.args[0], prim.FloatImm):
            root = np.sqrt(np.dtype(dtype).type(call.args[0].value))  # as exact as fb_sqrt
            return self._float(prim.FloatImm(dtype, float(root)))
        arguments = [self(argument) for argument in call.args]
        known = iv.of_dtype(dtype)
        if name in ROUNDINGS:
            known = _rounded(arguments[0].range)
        code = f"{function}({', '.join(argument.code for argument in arguments)})"
        return Text(code, ATOM, dtype, known)

    def _reinterpret(self, call: ir.Call, dtype: str) -> Text:
        value = self(call.args[0])
        if value.dtype == dtype:
            return value
        if value.dtype == "float32" and dtype in ("int32", "uint32"):
            code = f"({C_TYPES[dtype]})fb_float_bits({value.code})"
            return Text(code, UNARY, dtype, iv.of_dtype(dtype))
        if dtype == "float32" and value.dtype in ("int32", "uint32"):
            code = f"fb_bits_float((uint32_t){value.within(UNARY)})"
            return Text(code, ATOM, dtype, iv.of_dtype(dtype))
        if dtype not in iv.FLOATS and value.dtype not in iv.FLOATS:
            return self.converted(value, dtype)
        raise self.refusal(f"reinterpretation of {value.dtype} as {dtype}")


def _unclamped(value: ir.Expr, limits: Interval) -> ir.Expr:
    """A float without clamps that its conversion to an integer of these limits repeats."""
    while isinstance(value, prim.Min | prim.Max) and isinstance(value.b, prim.FloatImm):
        bound = value.b.value
        if bound < limits.high if isinstance(value, prim.Min) else bound > limits.low:
            break
        value = value.a
    return value


def _common(dtype: str, a: Text, b: Text) -> str:
    """The C type of an operation of that dtype whose result is no wider than its operands."""
    if dtype != "int64" or "int64" in (a.dtype, b.dtype):
        return dtype
    return "int32"


def _rounded(known: Interval) -> Interval:
    low = known.low if math.isinf(known.low) else math.floor(known.low)
    high = known.high if math.isinf(known.high) else math.ceil(known.high)
    return Interval(low, high, known.nan)


def _decide(symbol: str, a: Interval, b: Interval) -> bool | None:
    """The comparison's result if bounds settle it."""
    if symbol == ">":
        return _decide("<", b, a)
    if symbol == ">=":
        return _decide("<=", b, a)
    if symbol == "<":
        return True if a.high < b.low else (False if a.low >= b.high else None)
    if symbol == "<=":
        return True if a.high <= b.low else (False if a.low > b.high else None)
    equal = None
    if a.low == a.high == b.low == b.high:
        equal = True
    elif a.high < b.low or b.high < a.low:
        equal = False
    if equal is None:
        return None
    return equal if symbol == "==" else not equal
