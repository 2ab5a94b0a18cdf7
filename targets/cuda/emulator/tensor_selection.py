"""Which operations the instructions of tensor cores become."""

# ruff: noqa: D102  (do_NAME selects the instruction NAME)
from __future__ import annotations

import re

from . import ptx
from .code import SPACES, SPECIAL
from .operands import FALSE, TRUE, Operands, Unknown

#: `fb_type` of `tensor/tensor.h`.
_ELEMENTS = {
    name: number
    for number, name in enumerate(
        ["f16", "bf16", "tf32", "f32", "f64", "e4m3", "e5m2", "s8", "u8", "s4", "u4", "b1", "s32"]
    )
}


class TensorSelection(Operands):
    """Selection of mma, wgmma and the matrix moves."""

    def shape(self) -> tuple[int, int, int]:
        for name in self.modifiers:
            if match := re.fullmatch(r"m(\d+)n(\d+)k(\d+)", name):
                m, n, k = match.groups()
                return int(m), int(n), int(k)
        raise Unknown("no shape")

    def elements(self) -> list[int]:
        return [_ELEMENTS[name] for name in self.modifiers if name in _ELEMENTS]

    def fragment(self, operand: ptx.Operand, result: bool = False) -> list[int]:
        """The registers of a fragment; 64-bit ones count as two."""
        refs: list[int] = []
        for item in self.items(operand):
            if isinstance(item, ptx.Register):
                slot = self.maker.slot(item)
                refs.append(slot)
                if item.kind == "64":
                    raise Unknown("fragments of f64")
                continue
            if result:
                raise Unknown("a result that is no register")
            slot = self.maker.slot(self.maker.temporary(False))
            self.emit("mov", [slot, self.read(item, "u32")], "u32")
            refs.append(slot)
        return refs

    def do_mma(self) -> None:
        if self.has("block_scale") or any(m.startswith("kind") for m in self.modifiers):
            raise Unknown
        d, a, b, c, *more = self.operands
        kinds = self.elements()
        if len(kinds) != 4:
            raise Unknown
        result, first, second, addend = kinds
        sparse = 0
        if self.has("sp"):
            sparse = 1
        if self.has("sp::ordered_metadata"):
            sparse = 2
        selector = 0
        registers = [
            *self.fragment(d, True),
            *self.fragment(a),
            *self.fragment(b),
            *self.fragment(c),
        ]
        if sparse:
            registers += self.fragment(more[0])
            if not isinstance(more[1], ptx.Immediate):
                raise Unknown
            selector = more[1].value
        fields = [*self.shape(), first, second, addend, result]
        fields += [int(self.has("satfinite")), int(self.has("xor")), sparse, selector]
        operation = self.emit("mma", [*fields, *registers])
        operation.results = len(self.items(d))

    def matrices(self) -> int:
        if not self.has("m8n8") or not self.has("b16"):
            raise Unknown
        count = next(int(name[1:]) for name in self.modifiers if name in ("x1", "x2", "x4"))
        return count | (8 if self.has("trans") else 0)

    def do_ldmatrix(self) -> None:
        d, address = self.operands
        words, narrow = self.memory(address)
        flags = self.space() | narrow | self.matrices() << SPECIAL
        self.emit("ldmatrix", [*words, *self.fragment(d, True)], flags=flags)

    def do_stmatrix(self) -> None:
        address, source = self.operands
        words, narrow = self.memory(address)
        flags = self.space() | narrow | self.matrices() << SPECIAL
        self.emit("stmatrix", [*words, *self.fragment(source)], flags=flags)

    def do_movmatrix(self) -> None:
        d, a = self.operands
        self.emit("movmatrix", [self.write(d, "u32"), self.read(a, "u32")])

    def do_wgmma(self) -> None:
        kind = self.modifiers[0]
        if kind == "fence":
            self.emit("wgmma_fence", [])
        elif kind == "commit_group":
            self.emit("wgmma_commit", [])
        elif kind == "wait_group":
            (count,) = self.operands
            if not isinstance(count, ptx.Immediate):
                raise Unknown
            self.emit("wgmma_wait", [count.value])
        else:
            self.warpgroup_product()

    def warpgroup_product(self) -> None:
        d, a, b, *more = self.operands
        _, n, k = self.shape()
        kinds = self.elements()
        result, first, second = kinds if len(kinds) == 3 else (kinds[0], kinds[1], kinds[1])
        sparse = self.has("sp")
        extra: list[int] = []
        selector = 0
        zero = self.maker.constant(0, True)
        registers = self.fragment(d, True)
        in_registers = isinstance(a, ptx.Vector)
        if in_registers:
            registers += self.fragment(a)
        if sparse:
            metadata, chosen, *more = more
            extra = self.fragment(metadata)
            if not isinstance(chosen, ptx.Immediate):
                raise Unknown
            selector = chosen.value
        scale = TRUE if not more else self.predicate(more[0])
        numbers = [operand.value for operand in more[1:] if isinstance(operand, ptx.Immediate)]
        scale_a, scale_b, *transposed = numbers or (1, 1)
        if in_registers:
            transposed = [0, *transposed]
        trans_a, trans_b = (*transposed, 0, 0)[:2]
        fields = [n, k, first, second, result, int(self.has("satfinite")), scale_a, scale_b]
        fields += [trans_a, trans_b, int(sparse), selector, int(in_registers)]
        left = zero if in_registers else self.read(a, "u64")
        refs = [*fields, scale, left, self.read(b, "u64"), *registers, *extra]
        self.emit("wgmma", refs)


__all__ = ["FALSE", "SPACES", "TensorSelection"]
