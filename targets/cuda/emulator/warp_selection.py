"""Which operations barriers and the exchange between lanes become."""

# ruff: noqa: D102  (do_NAME selects the instruction NAME)
from __future__ import annotations

from . import ptx
from .code import HIGH, NAN, NO_PC, SPACES, SPECIAL, WIDE_DATA, WIDE_SOURCE
from .operands import FALSE, SINK, SINK_PREDICATE, Operands, Unknown

_ALL = 0xFFFFFFFF


class WarpSelection(Operands):
    """Selection of the instructions in which threads meet."""

    def members(self, operands: list[ptx.Operand]) -> int:
        """The member mask, the last operand of .sync forms."""
        if self.has("sync"):
            return self.read(operands[-1], "u32")
        return self.maker.constant(_ALL, False)

    def do_shfl(self) -> None:
        destination, a, b, c, *more = self.operands
        d, p = self.pair(destination)
        kind = next(n for n, name in enumerate(("up", "down", "bfly", "idx")) if self.has(name))
        refs = [self.write(d, "u32"), self.predicate_result(p) if p is not None else SINK_PREDICATE]
        refs += [self.read(operand, "u32") for operand in (a, b, c)]
        self.emit("shfl", [*refs, self.members(list(more))], flags=kind << SPECIAL)

    def do_vote(self) -> None:
        d, source, *more = self.operands
        kind = next(n for n, name in enumerate(("all", "any", "uni", "ballot")) if self.has(name))
        is_ballot = kind == 3
        refs = (
            [SINK_PREDICATE, self.write(d, "u32")]
            if is_ballot
            else [self.predicate_result(d), SINK]
        )
        self.emit(
            "vote", [*refs, self.predicate(source), self.members(list(more))], flags=kind << SPECIAL
        )

    def do_match(self) -> None:
        destination, a, mask = self.operands
        d, p = self.pair(destination)
        refs = [self.write(d, "u32"), self.predicate_result(p) if p is not None else SINK_PREDICATE]
        kind = self.kind()
        refs += [self.read(a, kind), self.read(mask, "u32")]
        self.emit("match", refs, kind, flags=int(self.has("all")) << SPECIAL)

    def do_redux(self) -> None:
        kinds = ("add", "min", "max", "and", "or", "xor")
        if self.has("f32"):
            raise Unknown
        special = next(n for n, name in enumerate(kinds) if self.has(name)) << SPECIAL
        refs = [self.write(self.operands[0], "u32")]
        refs += [self.read(operand, "u32") for operand in self.operands[1:]]
        self.emit("redux", refs, self.kind(), flags=special)

    def do_activemask(self) -> None:
        self.emit("activemask", [self.write(self.operands[0], "u32")])

    def do_elect(self) -> None:
        destination, mask = self.operands
        d, p = self.pair(destination)
        if p is None:
            raise Unknown
        self.emit("elect", [self.write(d, "u32"), self.predicate_result(p), self.read(mask, "u32")])

    def do_bar(self) -> None:
        if self.has("warp"):
            self.emit("warp_sync", [self.read(self.operands[0], "u32")])
            return
        self.barrier(aligned=True)

    def do_barrier(self) -> None:
        if self.has("cluster"):
            self.emit("cluster_bar", [], flags=int(self.has("wait")) << SPECIAL)
            return
        self.barrier(aligned=self.has("aligned"))

    def barrier(self, aligned: bool) -> None:
        operands = list(self.operands)
        flags = NAN if aligned else 0
        predicate, count, vote = SINK_PREDICATE, SINK, FALSE
        if self.has("red"):
            result = operands.pop(0)
            vote = self.predicate(operands.pop())
            if self.has("popc"):
                count, kind = self.write(result, "u32"), 4
            else:
                predicate, kind = self.predicate_result(result), 2 if self.has("and") else 3
        else:
            kind = 1 if self.has("arrive") else 0
        refs = [predicate, count, self.read(operands[0], "u32")]
        if len(operands) > 1:
            refs.append(self.read(operands[1], "u32"))
            flags |= HIGH
        else:
            refs.append(self.maker.constant(0, False))
        self.emit("bar", [*refs, vote], flags=flags | kind << SPECIAL)

    # -- mbarrier

    def do_mbarrier(self) -> None:
        kind = self.modifiers[0]
        if kind in ("test_wait", "try_wait"):
            self.wait()
            return
        if kind == "pending_count":
            d, state = self.operands
            self.emit("mbar_pending", [self.write(d, "u32"), self.read(state, "u64")])
            return
        operands = list(self.operands)
        state: ptx.Operand | None = None
        if not isinstance(operands[0], ptx.Memory):
            state = operands.pop(0)
        words, narrow = self.memory(operands.pop(0))
        first = self.read(operands[0], "u32") if operands else self.maker.constant(1, False)
        expects = self.has("expect_tx")
        number = {
            "init": 0, "inval": 1, "expect_tx": 4, "complete_tx": 5,
            "arrive": 3 if expects else 7 if self.has("noComplete") else 2,
            "arrive_drop": 6 if not self.has("noComplete") else 8,
        }[kind]  # fmt: skip
        flags = self.space() | narrow | number << SPECIAL
        target = SINK
        if isinstance(state, ptx.Register):
            target = self.write(state, "u64")
            flags |= WIDE_DATA
        one = self.maker.constant(1, False)
        count = one if expects else first
        size = first if expects or number in (4, 5) else self.maker.constant(0, False)
        self.emit("mbar", [target, SINK_PREDICATE, *words, count, size], flags=flags)

    def wait(self) -> None:
        p, address, wanted = self.operands[:3]
        parity = self.has("parity")
        words, narrow = self.memory(address)
        value = self.read(wanted, "u32" if parity else "u64")
        special = int(parity) | (2 if self.modifiers[0] == "try_wait" else 0)
        flags = self.space() | narrow | special << SPECIAL | (0 if parity else WIDE_SOURCE)
        self.emit("mbar_wait", [self.predicate_result(p), *words, value], flags=flags)

    def do_mapa(self) -> None:
        d, a, rank = self.operands
        target, wide = self.data(d, self.kind(), True)
        source, wide_source = self.data(a, self.kind(), False)
        flags = (WIDE_DATA if wide else 0) | (WIDE_SOURCE if wide_source else 0)
        self.emit("mapa", [target, source, self.read(rank, "u32")], flags=flags)

    def do_getctarank(self) -> None:
        d, a = self.operands
        source, wide = self.data(a, self.kind(), False)
        self.emit("getctarank", [self.write(d, "u32"), source], flags=WIDE_SOURCE if wide else 0)


__all__ = ["NO_PC", "SPACES", "WarpSelection"]
