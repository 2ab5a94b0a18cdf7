"""Which operations of the interpreter one PTX instruction becomes: arithmetic and flow."""

# ruff: noqa: D102  (do_NAME selects the instruction NAME)
from __future__ import annotations

from . import ptx
from .code import (
    CARRY_IN,
    CARRY_OUT,
    FTZ,
    HIGH,
    INTEGER,
    ROUNDING,
    SPECIAL,
    TYPES,
    WIDE_DATA,
    WIDE_SOURCE,
    Operation,
)
from .flow_selection import FlowSelection
from .memory_selection import MemorySelection
from .operands import FALSE, SINK_PREDICATE, Operands, Unknown
from .tensor_selection import TensorSelection
from .warp_selection import WarpSelection

__all__ = ["BUILTINS", "Selector", "Unknown"]

#: Functions of CUDA's run time.
BUILTINS = {"vprintf": 0, "__assertfail": 1}

_COMPARISONS = [
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "lo",
    "ls",
    "hi",
    "hs",
    "equ",
    "neu",
    "ltu",
    "leu",
    "gtu",
    "geu",
    "num",
    "nan",
]
_COMBINATIONS = {"and": 1, "or": 2, "xor": 3}
_MATH = {
    name: n for n, name in enumerate(["rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"])
}
_BITS = {"u": "u", "s": "s", "b": "u"}
_NOTHING = frozenset(
    [
        "membar",
        "fence",
        "prefetch",
        "prefetchu",
        "discard",
        "applypriority",
        "griddepcontrol",
        "setmaxnreg",
        "pmevent",
    ]
)
_PLAIN = {  # operation: operands after the result, by the type; w: 32 bits
    **dict.fromkeys(
        ["add", "sub", "min", "max", "div", "rem", "copysign", "and", "or", "xor"], "tt"
    ),
    **dict.fromkeys(["abs", "neg", "not", "cnot", "brev"], "t"),
    **dict.fromkeys(("sad", "fma"), "ttt"),
    **dict.fromkeys(("shl", "shr"), "tw"),
    "bfe": "tww",
    "bfi": "ttww",
}


class Selector(FlowSelection, MemorySelection, WarpSelection, TensorSelection, Operands):
    """Selects the operations of one instruction."""

    def __init__(self, maker, instruction: ptx.Instruction) -> None:
        super().__init__(maker, instruction)
        self.jumps: list[tuple[Operation, int, int]] = []

    def select(self) -> None:
        """Emits them.

        Raises:
            Unknown: it is not known.
        """
        name = self.instruction.opcode
        if name in _NOTHING:
            self.emit("nop", [])
        elif name in _PLAIN:
            self.plain(name)
        elif name in _MATH:
            d, a = self.operands
            kind = self.kind()
            flags = self.flags() | _MATH[name] << SPECIAL
            self.emit("math", [self.write(d, kind), self.read(a, kind)], kind, flags=flags)
        else:
            method = getattr(self, f"do_{name}", None)
            if method is None:
                raise Unknown
            method()

    def plain(self, name: str) -> None:
        kind = self.kind()
        if kind == "pred":
            d, *rest = self.operands
            if name == "not":
                refs = [self.predicate_result(d), self.predicate(rest[0]) ^ 1]
                self.emit("mov_pred", refs)
                return
            refs = [self.predicate_result(d), *(self.predicate(operand) for operand in rest)]
            self.emit(f"{name}_pred", refs)
            return
        if self.has("u16x2", "s16x2") or (name == "fma" and "f" not in kind):
            raise Unknown
        flags = self.flags()
        if name in ("add", "sub") and self.has("cc"):
            self.carry(name + "c", CARRY_OUT)
            return
        shape = _PLAIN[name]
        d, *rest = self.operands
        if name in ("min", "max") and len(rest) == 3:
            raise Unknown("three operands")
        refs = [self.write(d, kind)]
        for letter, operand in zip(shape, rest, strict=True):
            refs.append(self.read(operand, kind if letter == "t" else "u32"))
        if name in ("abs", "neg") and "f" not in kind:
            flags &= FTZ
        self.emit(name, refs, kind, flags=flags)

    def carry(self, name: str, flags: int) -> None:
        kind = self.kind()
        d, *rest = self.operands
        refs = [self.write(d, kind), *(self.read(operand, kind) for operand in rest)]
        self.emit(name, refs, kind, flags=flags)

    def do_addc(self) -> None:
        self.carry("addc", CARRY_IN | (CARRY_OUT if self.has("cc") else 0))

    def do_subc(self) -> None:
        self.carry("subc", CARRY_IN | (CARRY_OUT if self.has("cc") else 0))

    def do_madc(self) -> None:
        out = CARRY_OUT if self.has("cc") else 0
        self.carry("madc", CARRY_IN | out | (HIGH if self.has("hi") else 0))

    def do_mul(self) -> None:
        self.product("mul")

    def do_mad(self) -> None:
        if self.has("cc"):
            self.carry("madc", CARRY_OUT | (HIGH if self.has("hi") else 0))
        elif self.kind() in ("f32", "f64"):
            self.plain("fma")
        else:
            self.product("mad")

    def product(self, name: str) -> None:
        kind = self.kind()
        d, *rest = self.operands
        if self.has("wide"):
            wide = {"16": "32", "32": "64"}[kind[1:]]
            result = kind[0] + wide
            refs = [self.write(d, result), *(self.read(operand, kind) for operand in rest[:2])]
            refs += [self.read(operand, result) for operand in rest[2:]]
            self.emit(f"{name}_wide", refs, kind, result)
            return
        refs = [self.write(d, kind), *(self.read(operand, kind) for operand in rest)]
        self.emit(f"{name}_hi" if self.has("hi") else name, refs, kind, flags=self.flags())

    def do_mul24(self) -> None:
        d, a, b = self.operands
        refs = [self.write(d, "u32"), self.read(a, "u32"), self.read(b, "u32")]
        high = HIGH if self.has("hi") else 0
        self.emit("mul24", [*refs, int(self.kind() == "s32")], flags=high)

    def do_mov(self) -> None:
        d, a = self.operands
        if isinstance(d, ptx.Vector):
            self.unpack(d, a)
        elif isinstance(a, ptx.Vector):
            self.pack(d, a)
        elif isinstance(d, ptx.Register) and d.kind == "pred":
            self.emit("mov_pred", [self.predicate_result(d), self.predicate(a)])
        else:
            kind = self.kind()
            if isinstance(d, ptx.Register) and isinstance(a, ptx.Symbol):
                kind = "u64" if d.kind == "64" else "u32"
            self.emit("mov", [self.write(d, kind), self.read(a, kind)], kind)

    def pack(self, d: ptx.Operand, a: ptx.Vector) -> None:
        total, n = int(self.kind()[1:]), len(a.items)
        bits = total // n
        if total == 16 or bits == 8:
            refs = [self.read(item, "u32") for item in a.items]
            value = refs[0]
            for position, ref in enumerate(refs[1:], 1):
                step = self.write(d, f"u{total}")
                if position < n - 1:
                    step = self.maker.slot(self.maker.temporary(False))
                place = [self.number(position * bits), self.number(bits)]
                self.emit("bfi", [step, ref, value, *place], "u32")
                value = step
            return
        refs = [self.write(d, f"u{total}"), *(self.read(item, f"u{bits}") for item in a.items)]
        self.emit(f"pack{n}_{total}", refs)

    def unpack(self, d: ptx.Vector, a: ptx.Operand) -> None:
        total, n = int(self.kind()[1:]), len(d.items)
        bits = total // n
        source = self.read(a, f"u{total}")
        if total == 16 or bits == 8:
            copy = self.maker.slot(self.maker.temporary(False))
            self.emit("mov", [copy, source], "u32")
            for position, item in enumerate(d.items):
                place = [self.number(position * bits), self.number(bits)]
                self.emit("bfe", [self.write(item, f"u{bits}"), copy, *place], "u32")
            return
        self.emit(f"unpack{n}_{total}", [*(self.write(i, f"u{bits}") for i in d.items), source])

    def number(self, value: int) -> int:
        """A constant of 32 bits."""
        return self.maker.constant(value, False)

    def do_shf(self) -> None:
        special = (1 if self.has("r") else 0) | (2 if self.has("clamp") else 0)
        self.words("shf", special)

    def words(self, name: str, special: int = 0, kind: str = "u32") -> None:
        """An operation on 32-bit registers alone."""
        d, *rest = self.operands
        refs = [self.write(d, "u32"), *(self.read(operand, "u32") for operand in rest)]
        self.emit(name, refs, kind, flags=special << SPECIAL)

    def do_lop3(self) -> None:
        destination, *rest = self.operands
        d, p = self.pair(destination)
        special, q, result = 0, FALSE, SINK_PREDICATE
        if p is not None:
            special = 1 if self.has("or") else 2
            q, result = self.predicate(rest[4]), self.predicate_result(p)
        table = rest[3]
        if not isinstance(table, ptx.Immediate):
            raise Unknown("a table in a register")
        refs = [self.write(d, "u32"), result, *(self.read(operand, "u32") for operand in rest[:3])]
        self.emit("lop3", [*refs, table.value, q], flags=special << SPECIAL)

    def do_prmt(self) -> None:
        modes = ("", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16")
        self.words("prmt", next((n for n, mode in enumerate(modes) if mode in self.modifiers), 0))

    def do_szext(self) -> None:
        self.words("szext", 2 if self.has("clamp") else 0, self.kind())

    def do_bmsk(self) -> None:
        self.words("bmsk", 2 if self.has("clamp") else 0)

    def do_fns(self) -> None:
        self.words("fns")

    def count(self, name: str, special: int = 0) -> None:
        d, a = self.operands
        kind = self.kind()
        self.emit(name, [self.write(d, "u32"), self.read(a, kind)], kind, flags=special << SPECIAL)

    def do_popc(self) -> None:
        self.count("popc")

    def do_clz(self) -> None:
        self.count("clz")

    def do_bfind(self) -> None:
        self.count("bfind", int(self.has("shiftamt")))

    def do_dp4a(self) -> None:
        a, b = self.types()
        self.words("dp4a", (a == "s32") | (b == "s32") << 1)

    def do_dp2a(self) -> None:
        a, b = self.types()
        self.words("dp2a", (a == "s32") | (b == "s32") << 1 | self.has("hi") << 2)

    # -- comparison

    def comparison(self) -> int:
        special = _COMPARISONS.index(self.modifiers[0])
        return (special | _COMBINATIONS.get(self.modifiers[1], 0) << 5) << SPECIAL

    def do_setp(self) -> None:
        kind = self.kind()
        destination, a, b, *more = self.operands
        p, q = self.pair(destination)
        other = self.predicate(more[0]) if more else FALSE
        refs = [
            self.predicate_result(p),
            self.predicate_result(q) if q is not None else SINK_PREDICATE,
        ]
        refs += [self.read(a, kind), self.read(b, kind), other]
        name = "setp_x2" if kind.endswith("x2") else "setp"
        self.emit(name, refs, kind, flags=self.comparison() | (FTZ if self.has("ftz") else 0))

    def do_set(self) -> None:
        result, kind = self.types()
        d, a, b, *more = self.operands
        refs = [self.write(d, result), self.read(a, kind), self.read(b, kind)]
        flags = self.comparison() | (FTZ if self.has("ftz") else 0)
        if kind.endswith("x2"):
            self.emit("set_x2", [*refs, int(result == "u32")], kind, result, flags)
            return
        self.emit("set", [*refs, self.predicate(more[0]) if more else FALSE], kind, result, flags)

    def do_selp(self) -> None:
        kind = self.kind()
        d, a, b, p = self.operands
        refs = [self.write(d, kind), self.read(a, kind), self.read(b, kind), self.predicate(p)]
        self.emit("selp", refs, kind)

    def do_slct(self) -> None:
        kind, selector = self.types()
        d, a, b, c = self.operands
        refs = [self.write(d, kind), self.read(a, kind), self.read(b, kind), self.read(c, selector)]
        self.emit("slct", refs, kind, selector, self.flags())

    def do_testp(self) -> None:
        kinds = ("finite", "infinite", "number", "notanumber", "normal", "subnormal")
        p, a = self.operands
        special = kinds.index(self.modifiers[0]) << SPECIAL
        refs = [self.predicate_result(p), self.read(a, self.kind())]
        self.emit("testp", refs, self.kind(), flags=special)

    # -- conversion

    def do_cvt(self) -> None:
        if self.has("pack"):
            result, _, *_ = self.types()
            bits = int(result[1:])
            d, a, b, *c = self.operands
            refs = [self.write(d, "u32"), self.read(a, "u32"), self.read(b, "u32")]
            refs.append(self.read(c[0], "u32") if c else self.maker.constant(0, False))
            self.emit("cvt_pack", refs, result, flags=bits << SPECIAL)
            return
        elements = {"f16x2": "f16", "bf16x2": "bf16", "e4m3x2": "e4m3", "e5m2x2": "e5m2"}
        found = [name for name in self.modifiers if name in TYPES or name in elements]
        result, source = found[-2:]
        flags = (
            self.flags()
            | (CARRY_IN if self.has("rna") else 0)
            | (CARRY_OUT if self.has("satfinite") else 0)
        )
        d, *rest = self.operands
        if result in elements and source == "f32":
            refs = [self.write(d, "u32"), *(self.read(operand, "f32") for operand in rest)]
            self.emit("cvt_pair", refs, elements[result], flags=flags)
            return
        if result in elements or source in elements:
            refs = [self.write(d, "u32"), self.read(rest[0], "u32")]
            self.emit("cvt_halves", refs, elements[result], elements[source], flags)
            return
        if any(name in ROUNDING and name.endswith("i") for name in self.modifiers):
            flags |= INTEGER if "f" in result else 0
        target, wide = self.data(d, result, True)
        value, wide_source = self.data(rest[0], source, False)
        flags |= (WIDE_DATA if wide else 0) | (WIDE_SOURCE if wide_source else 0)
        if isinstance(d, ptx.Register) and d.kind == "16":
            flags |= HIGH
        self.emit("cvt", [target, value], result, source, flags)
