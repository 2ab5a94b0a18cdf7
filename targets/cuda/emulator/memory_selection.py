"""Which operations loads, stores, atomics and copies become."""

# ruff: noqa: D102  (do_NAME selects the instruction NAME)
from __future__ import annotations

from . import ptx
from .code import (
    HIGH,
    NARROW_FIRST,
    NO_PC,
    SPACES,
    SPECIAL,
    TYPES,
    WIDE,
    WIDE_DATA,
    WIDE_SOURCE,
)
from .operands import FALSE, SINK, Operands, Unknown

_ATOMICS = ["add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"]
_REDUCTIONS = ["add", "min", "max", "inc", "dec", "and", "or", "xor"]
_PLAIN_TYPE = {"b8": "u8", "b16": "u16", "b32": "u32", "b64": "u64", "f16": "u16", "bf16": "u16"}


class MemorySelection(Operands):
    """Selection of the instructions that touch memory."""

    def do_ld(self) -> None:
        kind = self.kind()
        d, source = self.operands
        if self.has("b128"):
            raise Unknown
        targets: list[int] = []
        wide = False
        short = False
        for item in self.items(d):
            slot, is_wide = self.data(item, kind, True)
            if isinstance(item, ptx.Register):
                wide, short = is_wide, item.kind == "16"
            targets.append(slot)
        flags = WIDE_DATA if wide else 0
        register = "u64" if wide else "u16" if short else "u32"
        space = self.space()
        if space == SPACES["param"] and isinstance(source, ptx.Memory):
            base = source.base
            if isinstance(base, ptx.Symbol) and base.variable is not None:
                place = self.maker.place(base.variable) + base.offset + source.offset
                if base.variable in self.maker.entry_params:
                    self.emit("ld_param", [place, *targets], kind, register, flags)
                    return
                words = [self.maker.constant(place, True), 0]
                self.emit("ld", [*words, *targets], kind, register, flags | SPACES["local"])
                return
        words, narrow = self.memory(source)
        self.emit("ld", [*words, *targets], kind, register, flags | narrow | space)

    do_ldu = do_ld

    def do_st(self) -> None:
        kind = self.kind()
        target, value = self.operands
        if self.has("b128"):
            raise Unknown
        space = self.space()
        if space == SPACES["param"] and isinstance(target, ptx.Memory):
            base = target.base
            if not isinstance(base, ptx.Symbol) or base.variable is None:
                raise Unknown("a parameter at a computed address")
            place = self.maker.place(base.variable) + base.offset + target.offset
            words, narrow, space = [self.maker.constant(place, True), 0], 0, SPACES["local"]
        else:
            words, narrow = self.memory(target)
        sources: list[int] = []
        wide = TYPES[kind] in WIDE
        for item in self.items(value):
            slot, wide = self.data(item, kind, False)
            sources.append(slot)
        flags = narrow | space | (WIDE_SOURCE if wide else 0)
        self.emit("st", [*words, *sources], kind, flags=flags)

    def do_cvta(self) -> None:
        d, a = self.operands
        if not self.has("u64"):
            raise Unknown
        flags = self.space() | (HIGH if self.has("to") else 0)
        self.emit("cvta", [self.write(d, "u64"), self.read(a, "u64")], flags=flags)

    def do_isspacep(self) -> None:
        p, a = self.operands
        self.emit("isspacep", [self.predicate_result(p), self.read(a, "u64")], flags=self.space())

    def atomic_kind(self) -> tuple[str, int, int]:
        kind = self.kind()
        operation = next((name for name in self.modifiers if name in _ATOMICS), None)
        if operation is None or self.has("b128"):
            raise Unknown
        kind = {"f16": "f16", "bf16": "bf16"}.get(kind, kind)
        return kind, _ATOMICS.index(operation), self.space()

    def do_atom(self) -> None:
        kind, operation, space = self.atomic_kind()
        d, address, *values = self.operands
        if isinstance(d, ptx.Vector):
            raise Unknown
        if isinstance(d, ptx.Symbol):
            self.reduction(kind, operation, space, address, values[0])
            return
        words, narrow = self.memory(address)
        wide = TYPES[kind] in WIDE
        refs = [self.write(d, kind), *words, self.read(values[0], kind)]
        is_cas = operation == _ATOMICS.index("cas")
        refs.append(self.read(values[1], kind) if is_cas else self.maker.constant(0, wide))
        flags = space | narrow | operation << SPECIAL
        flags |= WIDE_DATA | WIDE_SOURCE if wide else 0
        self.emit("atom", refs, kind, flags=flags)

    def do_red(self) -> None:
        if self.has("async"):
            raise Unknown
        kind, operation, space = self.atomic_kind()
        address, value = self.operands[:2]
        self.reduction(kind, operation, space, address, value)

    def reduction(self, kind: str, operation: int, space: int, address: ptx.Operand,
                  value: ptx.Operand) -> None:  # fmt: skip
        words, narrow = self.memory(address)
        refs = [*words, *(self.read(item, kind) for item in self.items(value))]
        wide = WIDE_SOURCE if TYPES[kind] in WIDE else 0
        self.emit("red", refs, kind, flags=space | narrow | wide | operation << SPECIAL)

    # -- asynchronous copies

    def do_cp(self) -> None:
        if self.modifiers[0] == "reduce" and not self.has("tensor"):
            raise Unknown
        if self.has("bulk"):
            self.bulk()
        elif self.has("mbarrier"):
            (address,) = self.operands
            words, narrow = self.memory(address)
            self.emit(
                "cp_arrive", words, flags=self.space() | narrow | (HIGH if self.has("noinc") else 0)
            )
        elif self.has("commit_group"):
            self.emit("cp_commit", [])
        elif self.has("wait_all"):
            self.emit("cp_wait", [NO_PC])
        elif self.has("wait_group"):
            self.emit("cp_wait", [self.plain_number(self.operands[0])])
        else:
            self.copy()

    def plain_number(self, operand: ptx.Operand) -> int:
        if not isinstance(operand, ptx.Immediate):
            raise Unknown("a register where a number belongs")
        return operand.value

    def copy(self) -> None:
        to, source, size, *more = self.operands
        flags = SPACES["shared"] | self.plain_number(size) << SPECIAL
        words, narrow = self.memory(to)
        from_words, from_narrow = self.memory(source, second=True)
        ignore, given = FALSE, self.read(size, "u32")
        hint = self.has("L2::cache_hint")
        rest = more[:-1] if hint else more
        if rest:
            first = rest[0]
            if isinstance(first, ptx.Register) and first.kind == "pred":
                ignore = self.predicate(first)
            else:
                given = self.read(first, "u32")
        refs = [*words, *from_words, given, ignore]
        self.emit("cp_async", refs, flags=flags | narrow | from_narrow)

    def bulk(self) -> None:
        if self.has("commit_group"):
            self.emit("bulk_commit", [])
        elif self.has("wait_group"):
            self.emit("bulk_wait", [self.plain_number(self.operands[0])])
        elif self.has("prefetch"):
            self.emit("nop", [])
        elif self.has("tensor"):
            self.tensor_copy()
        else:
            self.linear_copy()

    def linear_copy(self) -> None:
        spaces = [m for m in self.modifiers if m.startswith(("shared", "global"))]
        to, source, size, *more = self.operands
        words, narrow = self.memory(to)
        from_words, from_narrow = self.memory(source, second=True)
        flags = narrow | from_narrow
        refs = [*words, *from_words, self.read(size, "u32")]
        if spaces[0].startswith("global"):
            self.emit("bulk_store", [*refs, 0], flags=flags | SPACES["shared"])
            return
        barrier, barrier_narrow = self.memory(more[0])
        if barrier_narrow != narrow:
            raise Unknown("addresses of different widths")
        if spaces[1].startswith("shared"):
            self.emit("bulk_copy", [*refs, *barrier], flags=flags | SPACES["cluster"])
            return
        multicast = self.has("multicast::cluster")
        blocks = self.read(more[1], "u32") if multicast else self.maker.constant(0, False)
        flags |= SPACES["cluster"] | (HIGH if multicast else 0)
        self.emit("bulk_load", [*refs, *barrier, blocks], flags=flags)

    def tensor_copy(self) -> None:
        if self.has("im2col", "tile::gather4", "tile::scatter4", "im2col_no_offs"):
            raise Unknown
        spaces = [m for m in self.modifiers if m.startswith(("shared", "global"))]
        if spaces[0].startswith("shared"):
            to, source, barrier, *more = self.operands
            words, narrow = self.memory(to)
            map_words, coordinates = self.map(source)
            barrier_words, barrier_narrow = self.memory(barrier)
            if barrier_narrow != narrow:
                raise Unknown("addresses of different widths")
            multicast = self.has("multicast::cluster")
            blocks = self.read(more[0], "u32") if multicast else self.maker.constant(0, False)
            flags = narrow | SPACES["cluster"] | (HIGH if multicast else 0)
            refs = [*words, *map_words, *barrier_words, blocks, *coordinates]
            self.emit("tma_load", refs, flags=flags)
            return
        to, source = self.operands[:2]
        map_words, coordinates = self.map(to)
        words, narrow = self.memory(source, second=True)
        reduce = next((n for n, name in enumerate(_REDUCTIONS) if name in self.modifiers), -1)
        kind = reduce + 1 if self.modifiers[0] == "reduce" else 0
        refs = [*map_words, *words, kind, *coordinates]
        self.emit("tma_store", refs, flags=narrow | SPACES["shared"])

    def map(self, operand: ptx.Operand) -> tuple[list[int], list[int]]:
        """``[tensorMap, {coordinates}]``"""
        if not isinstance(operand, ptx.Memory) or not operand.more:
            raise Unknown("a tensor map without coordinates")
        base = operand.base
        if isinstance(base, ptx.Register) and base.kind != "64":
            raise Unknown("a tensor map at a narrow address")
        words, _ = self.memory(ptx.Memory(base, operand.offset))
        return words, [self.read(item, "u32") for item in self.items(operand.more[0])]


__all__ = ["NARROW_FIRST", "SINK", "MemorySelection"]
