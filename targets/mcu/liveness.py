"""Which memory a program needs at each call, before anything is given an address.

A *block* is what gets an address: a buffer together with its aliases, or the scratch memory of one
call. The planner (`memory.py`) and the search for a better order of calls (`ordering.py`) both
look at a program through this view.
"""

from __future__ import annotations

import dataclasses
import math

from .program import DTYPE_BYTES, Buffer, KernelCall, Program


@dataclasses.dataclass(frozen=True)
class Block:
    """Memory that is placed as one piece.

    Attributes:
        size: bytes.
        alignment: bytes; a power of two.
        writers: the calls that write it, as a bit set.
        readers: the calls that read it, as a bit set.
        from_start: it holds a model input.
        to_end: it holds a model output.
    """

    size: int
    alignment: int
    writers: int
    readers: int
    from_start: bool
    to_end: bool

    @property
    def uses(self) -> int:
        """The calls that touch it, as a bit set."""
        return self.writers | self.readers


@dataclasses.dataclass(frozen=True)
class Liveness:
    """The blocks of a program and what each call does with them.

    Attributes:
        blocks: buffers first, in order of appearance; scratch memory after them.
        block_of: index of the block that holds a buffer, by the buffer's name.
        scratch_of: index of each call's scratch block, or None.
        touched: for each call, the blocks it reads, writes or uses as scratch.
        shares: for each call, ``{(output block, input block): distance}``: the smallest distance
            by which the output must start before the input while they share memory. Whether the
            input dies at that call, so that they may, depends on the order of calls.
        exact: the calls that may share only at that distance, not at a larger one.
    """

    blocks: tuple[Block, ...]
    block_of: dict[str, int]
    scratch_of: tuple[int | None, ...]
    touched: tuple[frozenset[int], ...]
    shares: tuple[dict[tuple[int, int], int], ...]
    exact: frozenset[int]

    def interval(self, index: int) -> tuple[int, int]:
        """First and last call at which a block is live, calls in their present order.

        Model inputs live from -1, model outputs to the number of calls.
        """
        block = self.blocks[index]
        lowest = (block.uses & -block.uses).bit_length() - 1
        first = -1 if block.from_start else lowest
        last = len(self.touched) if block.to_end else block.uses.bit_length() - 1
        return first, last

    def call_bytes(self, done: int, call: int) -> int:
        """The least memory with which `call` can run after the calls in the bit set `done`.

        Everything live is counted once, but the first output may share with inputs that die.
        """
        after = done | 1 << call
        total = 0
        newborn: set[int] = set()
        dying: set[int] = set()
        for index, block in enumerate(self.blocks):
            born = block.from_start or block.uses & done != 0
            finished = not block.to_end and block.uses & ~after == 0
            here = index in self.touched[call]
            if here or (born and not finished):
                total += block.size
                if here and not born:
                    newborn.add(index)
                if here and finished:
                    dying.add(index)
        pairs = {
            (output, source): distance
            for (output, source), distance in self.shares[call].items()
            if output in newborn and source in dying and source not in newborn
        }
        if not pairs:
            return total
        output = next(iter(pairs))[0]
        sources = sum(self.blocks[source].size for _, source in pairs)
        size = self.blocks[output].size
        together = max(size, sources + min(*pairs.values(), size))
        return total - size - sources + min(together, size + sources)

    def live_bytes(self, done: int) -> int:
        """The memory that holds values still needed after the calls in the bit set `done`."""
        return sum(
            block.size
            for block in self.blocks
            if (block.from_start or block.uses & done) and (block.to_end or block.uses & ~done)
        )

    def peak_bytes(self, order: tuple[int, ...]) -> int:
        """The largest `call_bytes` over the calls in `order`: no arena can be smaller."""
        done = 0
        peak = sum(block.size for block in self.blocks if block.from_start)
        for call in order:
            peak = max(peak, self.call_bytes(done, call))
            done |= 1 << call
        return max(peak, sum(block.size for block in self.blocks if block.to_end))


def roots(program: Program) -> dict[str, Buffer]:
    """Every buffer of the program by name, mapped to the buffer whose memory it is.

    Raises:
        ValueError: two buffers have one name, or aliases go in a circle.
    """
    known: dict[str, Buffer] = {}
    interface = (*program.inputs, *program.outputs)
    in_calls = (b for call in program.calls for b in (*call.inputs, *call.outputs))
    for buffer in (*interface, *in_calls, *program.aliases.values()):
        if known.setdefault(buffer.name, buffer) != buffer:
            raise ValueError(f"two different buffers are called {buffer.name!r}")
    resolved: dict[str, Buffer] = {}
    for name in (*known, *(alias for alias in program.aliases if alias not in known)):
        root, steps = name, 0
        while root in program.aliases:
            root, steps = program.aliases[root].name, steps + 1
            if steps > len(program.aliases):
                raise ValueError(f"the aliases of {name!r} go in a circle")
        resolved[name] = known[root]
    return resolved


def analyze(program: Program) -> Liveness:
    """The liveness view of a program.

    Raises:
        ValueError: the program is malformed: a call reads what nobody wrote, an argument is a
            buffer that the call does not list, or names are not unique.
    """
    root_of = roots(program)
    numbers: dict[str, int] = {}
    block_of = {name: numbers.setdefault(root.name, len(numbers)) for name, root in root_of.items()}
    count = len(numbers)
    _check_order(program, block_of)
    by_name = {b.name: b for b in root_of.values()}
    for buffer in (*program.inputs, *program.outputs):
        by_name[buffer.name] = buffer
    for call in program.calls:
        by_name |= {b.name: b for b in (*call.inputs, *call.outputs)}

    sizes, alignments = [0] * count, [4] * count
    for name, buffer in by_name.items():
        index = block_of[name]
        sizes[index] = max(sizes[index], buffer.bytes)
        alignments[index] = max(alignments[index], DTYPE_BYTES[buffer.dtype])
    writers, readers = [0] * count, [0] * count
    for position, call in enumerate(program.calls):
        for buffer in call.outputs:
            writers[block_of[buffer.name]] |= 1 << position
        for buffer in call.inputs:
            readers[block_of[buffer.name]] |= 1 << position
    starts = {block_of[b.name] for b in program.inputs}
    ends = {block_of[b.name] for b in program.outputs}
    blocks = [
        Block(
            size=sizes[index],
            alignment=alignments[index],
            writers=writers[index],
            readers=readers[index],
            from_start=index in starts,
            to_end=index in ends,
        )
        for index in range(count)
    ]
    scratch_of: list[int | None] = []
    touched: list[frozenset[int]] = []
    for position, call in enumerate(program.calls):
        used = {block_of[b.name] for b in (*call.inputs, *call.outputs)}
        if call.scratch > 0:
            used.add(len(blocks))
            scratch_of.append(len(blocks))
            blocks.append(Block(call.scratch, 8, 1 << position, 0, False, False))
        else:
            scratch_of.append(None)
        touched.append(frozenset(used))
    shares = tuple(_shares(call, block_of) for call in program.calls)
    exact = frozenset(p for p, call in enumerate(program.calls) if call.overlap_exact)
    return Liveness(tuple(blocks), block_of, tuple(scratch_of), tuple(touched), shares, exact)


def _shares(call: KernelCall, block_of: dict[str, int]) -> dict[tuple[int, int], int]:
    """The pairs that may share memory; an input given twice shares only as both places allow."""
    if not call.outputs:
        return {}
    output = block_of[call.outputs[0].name]
    distances: dict[int, float] = {}
    for position, buffer in enumerate(call.inputs):
        allowed = call.overlap[position] if position < len(call.overlap) else None
        source = block_of[buffer.name]
        distance = math.inf if allowed is None else allowed
        if call.overlap_exact and distances.get(source, distance) != distance:
            distance = math.inf
        distances[source] = max(distances.get(source, 0), distance)
    size = call.outputs[0].bytes
    return {(output, s): int(d) for s, d in distances.items() if d < size and s != output}


def _check_order(program: Program, block_of: dict[str, int]) -> None:
    written = {block_of[b.name] for b in program.inputs}
    for position, call in enumerate(program.calls):
        listed = {b.name for b in (*call.inputs, *call.outputs)}
        for argument in call.arguments:
            if isinstance(argument, Buffer) and argument.name not in listed:
                raise ValueError(f"call {position} does not list its argument {argument.name!r}")
        for buffer in call.inputs:
            if block_of[buffer.name] not in written:
                raise ValueError(f"call {position} reads {buffer.name!r}, which nothing wrote")
        written |= {block_of[b.name] for b in call.outputs}
    for buffer in program.outputs:
        if block_of[buffer.name] not in written:
            raise ValueError(f"nothing writes the output {buffer.name!r}")
