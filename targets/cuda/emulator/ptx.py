"""PTX text to instructions whose names are resolved: registers, variables and labels by scope.

The grammar is that of NVIDIA's "Parallel Thread Execution ISA" 8.x and 9.0, as nvcc and NVRTC write
it, with the nested scopes and repeated labels of inline assembly. What an instruction means is not
known here (`program.py`).
"""

from __future__ import annotations

import re
import struct

from ....errors import FewbitsError
from .syntax import (
    Function,
    Group,
    Immediate,
    Instruction,
    Memory,
    Module,
    Negated,
    Operand,
    Pair,
    Register,
    Scope,
    Special,
    Symbol,
    Variable,
    Vector,
    labels_of,
)

__all__ = [
    "Function",
    "Group",
    "Immediate",
    "Instruction",
    "Memory",
    "Module",
    "Negated",
    "Operand",
    "Pair",
    "Register",
    "Scope",
    "Special",
    "Symbol",
    "Variable",
    "Vector",
    "labels_of",
    "parse",
]

_TOKENS = re.compile(
    r'(?P<line>\n)|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>[%$_.A-Za-z0-9][\w$.%]*(?:::[\w.]+)*)|(?P<mark>[^\s])"
)
_COMMENTS = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8, "16x2": 4, "128": 16}
_SPACES = ("global", "const", "shared", "local", "param")


def parse(text: str) -> Module:
    """Reads a PTX file.

    Raises:
        FewbitsError: ``ptx-syntax``, with the line.
    """
    parser = _Parser(text)
    try:
        return parser.module()
    except RecursionError as error:
        raise parser.fail("too deeply nested") from error


class _Parser:
    def __init__(self, text: str) -> None:
        text = _COMMENTS.sub(lambda m: "\n" * m.group().count("\n") + " ", text)
        self.tokens: list[str] = []
        self.lines: list[int] = []
        line = 1
        for match in _TOKENS.finditer(text.rstrip("\0")):
            if match.lastgroup == "line":
                line += 1
            else:
                token = match.group()
                # Inline assembly also writes `.reg.b32`.
                parts = (
                    ["." + part for part in token[1:].split(".")] if token[0] == "." else [token]
                )
                self.tokens += parts
                self.lines += [line] * len(parts)
        self.tokens += ["", ""]
        self.lines += [line, line]
        self.at = 0
        self.scope = Scope()
        self.function: Function | None = None
        self.globals: dict[str, Variable] = {}
        self.functions: dict[str, Function] = {}

    def fail(self, message: str) -> FewbitsError:
        return FewbitsError("ptx-syntax", message, where=f"PTX line {self.lines[self.at]}")

    def peek(self) -> str:
        return self.tokens[self.at]

    def next(self) -> str:
        token = self.tokens[self.at]
        if not token:
            raise self.fail("the text ends in the middle of a statement")
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise self.fail(f"expected {token!r}, found {self.peek()!r}")
        self.at += 1

    def accept(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self.at += 1
        return True

    def number(self) -> int:
        sign = -1 if self.accept("-") else 1
        token = self.next()
        value = _integer(token)
        if value is None:
            raise self.fail(f"expected a number, found {token!r}")
        return sign * value

    def module(self) -> Module:
        version, target = 0, ""
        while self.peek():
            word = self.next()
            if word == ".version":
                major, _, minor = self.next().partition(".")
                if not (major.isdigit() and minor.isdigit()):
                    raise self.fail("a version is written as 8.5")
                version = int(major) * 10 + int(minor)
            elif word == ".target":
                target = self.next()
                while self.accept(","):
                    self.next()
            elif word == ".address_size":
                if self.number() != 64:
                    raise self.fail("addresses must have 64 bits")
            elif word in (".visible", ".weak", ".common", ".extern", ".noreturn", ";"):
                if word == ".extern" and self.peek()[1:] in _SPACES:
                    self.variable(self.next(), extern=True)
            elif word in (".entry", ".func"):
                self.callable(word == ".entry")
            elif word[1:] in _SPACES:
                self.variable(word)
            elif word in (".file", ".alias", ".pragma"):
                self.skip_line()
            elif word == ".section":
                while self.next() != "{":
                    pass
                while self.next() != "}":
                    pass
            else:
                raise self.fail(f"unknown statement {word!r}")
        return Module(version, target, self.globals, self.functions)

    def skip_line(self) -> None:
        line = self.lines[self.at - 1]
        while self.peek() and self.lines[self.at] == line:
            self.at += 1

    # -- declarations

    def variable(self, word: str, extern: bool = False) -> list[Variable]:
        space, align, size = word[1:].partition("::")[0], 0, 0
        kind, count = "", 1
        while self.peek().startswith("."):
            part = self.next()
            if part == ".align":
                align = self.number()
            elif part in (".v2", ".v4"):
                count = int(part[2:])
            elif part in (
                ".ptr",
                *("." + s for s in _SPACES),
                ".attribute",
                ".unified",
                ".managed",
            ):
                continue
            else:
                kind = part[1:]
        size = self.width(kind) * count
        made: list[Variable] = []
        while True:
            name = self.next()
            total = size
            known = True
            while self.accept("["):
                if self.accept("]"):
                    total, known = 0, False
                else:
                    total *= self.number()
                    self.expect("]")
            init, relocations = b"", ()
            if self.accept("="):
                init, relocations = self.initializer(size // count)
                if not known:
                    total = len(init)
            variable = Variable(name, space, align or size, total, init, relocations, extern)
            made.append(variable)
            if self.function is None and space != "param":
                if name not in self.globals or not extern:
                    self.globals[name] = variable
                self.scope.names[name] = variable
            else:
                self.scope.names[name] = variable
                if self.function is not None:
                    self.function.variables.append(variable)
            if self.tokens[self.at + 1].startswith(".") or not self.accept(","):
                return made

    def width(self, kind: str) -> int:
        digits = kind.lstrip("bsuf")
        if kind in ("texref", "samplerref", "surfref"):
            return 8
        if kind == "pred":
            return 1
        if digits not in _BYTES:
            raise self.fail(f"unknown type .{kind}")
        return _BYTES[digits]

    def initializer(self, width: int) -> tuple[bytes, tuple[tuple[int, str, int], ...]]:
        data = bytearray()
        relocations: list[tuple[int, str, int]] = []

        def one() -> None:
            if self.accept("{"):
                while not self.accept("}"):
                    one()
                    self.accept(",")
                return
            sign = -1 if self.accept("-") else 1
            token = self.next()
            if token == "generic":
                self.expect("(")
                token = self.next()
                self.expect(")")
            immediate = _immediate(token)
            if immediate is None:
                addend = self.number() if self.accept("+") else 0
                relocations.append((len(data), token, addend))
                data.extend(bytes(width))
            else:
                value = sign * immediate.value
                data.extend((value & ((1 << 8 * width) - 1)).to_bytes(width, "little"))

        one()
        return bytes(data), tuple(relocations)

    def parameters(self) -> list[Variable]:
        self.expect("(")
        made: list[Variable] = []
        while not self.accept(")"):
            word = self.next()
            if word == ".reg":
                raise self.fail("parameters in registers are not supported")
            made.extend(self.variable(word))
            self.accept(",")
        return made

    def callable(self, entry: bool) -> None:
        line = self.lines[self.at - 1]
        outer, self.scope = self.scope, Scope(self.scope)
        if self.accept(".noreturn"):
            pass
        # Parameters are not variables of the function's own list.
        results = self.parameters() if self.peek() == "(" else []
        name = self.next()
        params = self.parameters() if self.peek() == "(" else []
        directives: dict[str, tuple[int, ...]] = {}
        while self.peek() not in ("{", ";"):
            word = self.next()
            if word == ".pragma":
                while not self.accept(";"):
                    self.next()
                continue
            values: list[int] = []
            while self.peek()[:1].isdigit():
                values.append(self.number())
                self.accept(",")
            directives[word] = tuple(values)
        function = Function(name, entry, line, results, params, [], [], directives, False)
        if self.accept(";"):
            self.functions.setdefault(name, function)
        else:
            self.expect("{")
            function.defined = True
            self.functions[name] = function
            self.function = function
            self.block()
            self.function = None
        self.scope = outer

    # -- bodies

    def block(self) -> None:
        assert self.function is not None
        body = self.function.body
        depth = 0
        while True:
            word = self.peek()
            if word == "{":
                self.next()
                self.scope = Scope(self.scope)
                depth += 1
            elif word == "}":
                self.next()
                if not depth:
                    return
                depth -= 1
                assert self.scope.parent is not None
                self.scope = self.scope.parent
            elif word == ";":
                self.next()
            elif word == ".reg":
                self.next()
                self.registers()
            elif word[:1] == "." and word[1:].partition("::")[0] in _SPACES:
                self.next()
                self.variable(word)
                self.expect(";")
            elif word == ".loc":
                self.skip_line()
            elif word[:1] == ".":
                while self.next() != ";":
                    pass
            elif self.tokens[self.at + 1] == ":":
                self.next()
                self.next()
                if self.peek() == ".branchtargets":
                    self.next()
                    table: list[str] = []
                    while not self.accept(";"):
                        table.append(self.next())
                        self.accept(",")
                    self.scope.tables[word] = table
                elif self.peek() == ".callprototype":
                    while self.next() != ";":
                        pass
                else:
                    self.scope.labels[word] = len(body)
            else:
                body.append(self.instruction())

    def registers(self) -> None:
        kind = self.next()
        if kind in (".v2", ".v4"):
            raise self.fail("vector registers are not supported")
        bits = "pred" if kind == ".pred" else str(max(16, 8 * self.width(kind[1:])))
        while True:
            name = self.next()
            if self.accept("<"):
                self.scope.ranges[name] = (self.number(), bits)
                self.expect(">")
            else:
                self.scope.names[name] = Register(name, bits)
            if self.accept(";"):
                return
            self.expect(",")

    def instruction(self) -> Instruction:
        line = self.lines[self.at]
        guard: Register | None = None
        negated = False
        if self.accept("@"):
            negated = self.accept("!")
            found = self.scope.find(self.next())
            if not isinstance(found, Register) or found.kind != "pred":
                raise self.fail("a guard must be a predicate")
            guard = found
        opcode, *modifiers = self.next().split(".")
        operands: list[Operand] = []
        while not self.accept(";"):
            operands.append(self.operand())
            if self.peek() != ";":
                self.expect(",")
        assert self.scope is not None
        return Instruction(
            line, opcode, tuple(modifiers), tuple(operands), guard, negated, self.scope
        )

    def items(self, end: str) -> tuple[Operand, ...]:
        made: list[Operand] = []
        while not self.accept(end):
            made.append(self.operand())
            self.accept(",")
        return tuple(made)

    def operand(self) -> Operand:
        first = self.simple()
        if self.accept("|"):
            return Pair(first, self.simple())
        return first

    def simple(self) -> Operand:
        if self.accept("{"):
            return Vector(self.items("}"))
        if self.accept("("):
            return Group(self.items(")"))
        if self.accept("["):
            base = self.simple()
            offset = 0
            if isinstance(base, Symbol):
                base, offset = Symbol(base.name, base.variable), base.offset
            elif self.accept("+"):
                offset = self.number()
            elif self.accept("-"):
                offset = -self.number()
            more: list[Operand] = []
            while self.accept(","):
                more.append(self.simple())
            self.expect("]")
            return Memory(base, offset, tuple(more))
        if self.accept("!"):
            return Negated(self.simple())
        if self.accept("-"):
            operand = self.simple()
            if isinstance(operand, Immediate) and not operand.bits:
                return Immediate(-operand.value)
            return Negated(operand)
        return self.name(self.next())

    def name(self, word: str) -> Operand:
        immediate = _immediate(word)
        if immediate is not None:
            return immediate
        found = self.scope.find(word)
        if isinstance(found, Register):
            return found
        if found is None and word[:1] == "%":
            return Special(word[1:])
        offset = 0
        if self.accept("+"):
            offset = self.number()
        return Symbol(word, found, offset)


def _integer(token: str) -> int | None:
    try:
        text = token.rstrip("U")
        if len(text) > 1 and text[0] == "0" and text.isdigit():
            return int(text, 8)
        return int(text, 0)
    except ValueError:
        return None


def _immediate(token: str) -> Immediate | None:
    head = token[:2].lower()
    try:
        if head == "0f" and len(token) == 10:
            return Immediate(int(token[2:], 16), 32)
        if head == "0d" and len(token) == 18:
            return Immediate(int(token[2:], 16), 64)
    except ValueError:
        return None
    if not token[:1].isdigit():
        return None
    value = _integer(token)
    if value is not None:
        return Immediate(value)
    try:
        return Immediate(struct.unpack("<Q", struct.pack("<d", float(token)))[0], 64)
    except ValueError:
        return None
