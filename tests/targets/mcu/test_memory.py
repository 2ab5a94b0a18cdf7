"""No two live buffers overlap unless their kernel allows it, and the arena is small."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.mcu.liveness import analyze
from fewbits.targets.mcu.memory import MemoryPlan, check_budget, plan, reorder
from fewbits.targets.mcu.ordering import dependencies, least_peak_order
from fewbits.targets.mcu.packing import Problem, pack
from fewbits.targets.mcu.program import DTYPE_BYTES, Buffer, KernelCall, Program
from hypothesis import given, settings
from hypothesis import strategies as st


def call(
    name: str,
    inputs: list[Buffer],
    outputs: list[Buffer],
    overlap: tuple[int | None, ...] = (),
    scratch: int = 0,
    exact: bool = False,
) -> KernelCall:
    return KernelCall(
        layer=name,
        operator="toy",
        function="toy",
        header=None,
        arguments=(*inputs, *outputs),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        scratch=scratch,
        overlap=overlap,
        overlap_exact=exact,
    )


def chain(sizes: list[int], overlap: int | None, scratch: int = 0, exact: bool = False) -> Program:
    buffers = [Buffer(f"b{i}", (size,), "int8") for i, size in enumerate(sizes)]
    calls = tuple(
        call(f"layer{i}", [a], [b], (overlap,), scratch, exact)
        for i, (a, b) in enumerate(itertools.pairwise(buffers))
    )
    return Program("chain", (buffers[0],), (buffers[-1],), calls)


def root(program: Program, buffer: Buffer) -> str:
    name = buffer.name
    while name in program.aliases:
        name = program.aliases[name].name
    return name


def check(program: Program, placed: MemoryPlan) -> None:
    """Runs the program on an arena whose bytes remember which buffer they belong to.

    Knows nothing of lifetimes: a buffer that something destroyed is noticed when it is read.
    """
    arena: list[tuple[str, int] | None] = [None] * placed.arena_bytes

    def region(buffer: Buffer) -> range:
        start = placed.offsets[buffer.name]
        assert start % max(4, DTYPE_BYTES[buffer.dtype]) == 0
        assert 0 <= start <= start + buffer.bytes <= placed.arena_bytes
        return range(start, start + buffer.bytes)

    def write(buffer: Buffer) -> None:
        for index, byte in enumerate(region(buffer)):
            arena[byte] = (root(program, buffer), index)

    def assert_intact(buffer: Buffer) -> None:
        expected = [(root(program, buffer), index) for index in range(buffer.bytes)]
        assert [arena[byte] for byte in region(buffer)] == expected, buffer.name

    def disjoint(a: range, b: range) -> bool:
        return a.stop <= b.start or b.stop <= a.start or not a or not b

    for buffer in program.inputs:
        write(buffer)
    for buffer in program.inputs:
        assert_intact(buffer)
    for kernel, scratch_offset in zip(program.calls, placed.scratch, strict=True):
        assert (scratch_offset is not None) == (kernel.scratch > 0)
        scratch = range(0)
        if scratch_offset is not None:
            assert scratch_offset % 8 == 0
            scratch = range(scratch_offset, scratch_offset + kernel.scratch)
            assert scratch.stop <= placed.arena_bytes
        for buffer in kernel.inputs:
            assert_intact(buffer)
            assert disjoint(region(buffer), scratch)
        for output in kernel.outputs:
            assert disjoint(region(output), scratch)
        for a, b in itertools.combinations(kernel.outputs, 2):
            assert disjoint(region(a), region(b))
        for position, buffer in enumerate(kernel.inputs):
            for output in kernel.outputs[1:]:
                assert disjoint(region(buffer), region(output))
            allowed = kernel.overlap[position] if position < len(kernel.overlap) else None
            if kernel.outputs and not disjoint(region(buffer), region(kernel.outputs[0])):
                assert allowed is not None
                distance = region(buffer).start - region(kernel.outputs[0]).start
                assert distance == allowed if kernel.overlap_exact else distance >= allowed
        for byte in scratch:
            arena[byte] = None
        for output in kernel.outputs:
            write(output)
    for buffer in program.outputs:
        assert_intact(buffer)


@st.composite
def programs(draw: st.DrawFn, most_calls: int = 7) -> Program:
    """Random graphs: branches, several outputs, dead outputs, reshapes, scratch, overlap."""
    count = 0

    def buffer(size: int | None = None, dtype: str | None = None) -> Buffer:
        nonlocal count
        count += 1
        dtype = dtype or draw(st.sampled_from(["int8", "int8", "int32", "int64"]))
        return Buffer(f"t{count}", (size or draw(st.integers(1, 40)),), dtype)

    inputs = [buffer() for _ in range(draw(st.integers(1, 2)))]
    known = list(inputs)
    aliases: dict[str, Buffer] = {}
    calls: list[KernelCall] = []
    made: list[Buffer] = []
    for number in range(draw(st.integers(1, most_calls))):
        sources = draw(st.lists(st.sampled_from(known[-4:]), min_size=1, max_size=3))
        outputs = [buffer() for _ in range(draw(st.sampled_from([1, 1, 1, 2])))]
        calls.append(
            call(
                f"layer{number}",
                sources,
                outputs,
                tuple(draw(st.sampled_from([None, 0, 0, 3, 8, 17])) for _ in sources),
                draw(st.sampled_from([0, 0, 5, 32])),
                draw(st.booleans()),
            )
        )
        made += outputs
        known += outputs
        if draw(st.integers(0, 3)) == 0:
            reshaped = buffer(outputs[0].shape[0], outputs[0].dtype)
            aliases[reshaped.name] = outputs[0]
            known.append(reshaped)
            made.append(reshaped)
    outputs = {root(Program("", (), (), (), aliases), b): b for b in [made[-1]]}
    for extra in draw(st.lists(st.sampled_from(made), max_size=2)):
        outputs.setdefault(root(Program("", (), (), (), aliases), extra), extra)
    return Program("random", tuple(inputs), tuple(outputs.values()), tuple(calls), aliases)


@settings(max_examples=150, deadline=None)
@given(programs())
def test_live_buffers_never_overlap_unless_allowed(program: Program) -> None:
    placed = plan(program)
    check(program, placed)
    assert placed.lower_bound <= placed.arena_bytes
    assert max(placed.live_bytes) <= placed.arena_bytes
    assert set(placed.offsets) >= {b.name for k in program.calls for b in k.outputs}


@settings(max_examples=60, deadline=None)
@given(programs(most_calls=6))
def test_reordering_keeps_meaning_and_never_costs_memory(program: Program) -> None:
    reordered = reorder(program)
    placed = plan(reordered)
    check(reordered, placed)
    assert {c.layer for c in reordered.calls} == {c.layer for c in program.calls}
    assert placed.arena_bytes <= plan(program).arena_bytes


@settings(max_examples=60, deadline=None)
@given(programs(most_calls=5))
def test_order_has_the_least_peak_of_all_orders(program: Program) -> None:
    liveness = analyze(program)
    before = dependencies(liveness)
    count = len(program.calls)
    valid = [
        order
        for order in itertools.permutations(range(count))
        if all(before[c] & ~sum(1 << done for done in order[:i]) == 0 for i, c in enumerate(order))
    ]
    least = min(map(liveness.peak_bytes, valid))
    assert liveness.peak_bytes(least_peak_order(liveness)) == least


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_small_packings_are_optimal_when_they_say_so(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    sizes = [data.draw(st.integers(1, 4)) for _ in range(count)]
    alignments = [data.draw(st.sampled_from([1, 1, 2])) for _ in range(count)]
    gaps: list[dict[int, int]] = [{} for _ in sizes]
    for a, b in itertools.combinations(range(count), 2):
        kind = data.draw(st.sampled_from(["free", "apart", "apart", "under"]))
        if kind != "free":
            gaps[a][b], gaps[b][a] = sizes[a], sizes[b]
        if kind == "under":  # the later block may start a little below the earlier one
            gaps[b][a] = data.draw(st.integers(0, sizes[b]))
    lifetimes = [(number, number) for number in range(count)]
    packing = pack(Problem(sizes, alignments, lifetimes, gaps, [{} for _ in sizes], 0))

    def feasible(offsets: tuple[int, ...]) -> bool:
        return all(
            offsets[b] - offsets[a] >= gaps[a][b] or offsets[a] - offsets[b] >= gaps[b][a]
            for a in range(count)
            for b in gaps[a]
        )

    def total(offsets: tuple[int, ...]) -> int:
        return max(o + s for o, s in zip(offsets, sizes, strict=True))

    places = [
        range(0, sum(sizes) + 4 - size, alignment)
        for size, alignment in zip(sizes, alignments, strict=True)
    ]
    assert feasible(packing.offsets)
    assert total(packing.offsets) == packing.total
    assert packing.optimal
    assert packing.total == min(map(total, filter(feasible, itertools.product(*places))))


def test_keyword_spotting_chain_runs_in_place() -> None:
    placed = plan(chain([490, *[8000] * 9, 64, 12], overlap=0, scratch=256))
    assert placed.arena_bytes == 8256
    assert placed.optimal


def test_chain_without_overlap_alternates_between_two_places() -> None:
    placed = plan(chain([490, *[8000] * 9, 64, 12], overlap=None))
    assert placed.arena_bytes == 16000
    assert placed.optimal


def test_buffers_walk_downwards_when_output_starts_before_input() -> None:
    program = chain([8000] * 5, overlap=100)
    placed = plan(program)
    check(program, placed)
    assert [placed.offsets[f"b{i}"] for i in range(5)] == [400, 300, 200, 100, 0]
    assert placed.arena_bytes == 8400


def test_exact_overlap_is_neither_closer_nor_farther() -> None:
    program = chain([800, 400, 200], overlap=12, exact=True)
    placed = plan(program)
    check(program, placed)
    assert placed.arena_bytes == 812


def test_residual_needs_both_branches() -> None:
    x, a, b, y = (Buffer(name, (1000,), "int8") for name in "xaby")
    program = Program(
        "residual",
        (x,),
        (y,),
        (
            call("first", [x], [a], (0,)),  # not in place: the addition still reads x
            call("second", [a], [b], (0,)),
            call("add", [x, b], [y], (0, 0)),
        ),
    )
    placed = plan(program)
    check(program, placed)
    assert placed.arena_bytes == 2000
    assert placed.live_bytes == (2000, 2000, 2000)


def test_branch_that_shrinks_is_finished_before_the_next_grows() -> None:
    x, y = Buffer("x", (8,), "int8"), Buffer("y", (8,), "int8")
    wide = [Buffer(f"wide{i}", (1000,), "int8") for i in range(3)]
    thin = [Buffer(f"thin{i}", (10,), "int8") for i in range(3)]
    calls = (
        *(call(f"grow{i}", [x], [w]) for i, w in enumerate(wide)),
        *(call(f"shrink{i}", [w], [t]) for i, (w, t) in enumerate(zip(wide, thin, strict=True))),
        call("join", thin, [y]),
    )
    program = Program("branches", (x,), (y,), calls)
    better = reorder(program)
    check(better, plan(better))
    assert plan(program).arena_bytes > 3000
    assert plan(better).arena_bytes < 1100


def test_graphs_with_too_many_orders_still_improve() -> None:
    x, y = Buffer("x", (8,), "int8"), Buffer("y", (8,), "int8")
    wide = [Buffer(f"wide{i}", (1000,), "int8") for i in range(14)]
    thin = [Buffer(f"thin{i}", (10,), "int8") for i in range(14)]
    calls = (
        *(call(f"grow{i}", [x], [w]) for i, w in enumerate(wide)),
        *(call(f"shrink{i}", [w], [t]) for i, (w, t) in enumerate(zip(wide, thin, strict=True))),
        call("join", thin, [y]),
    )
    better = reorder(Program("wide", (x,), (y,), calls))
    check(better, plan(better))
    assert plan(better).arena_bytes < 1300


def test_reorder_leaves_chains_alone() -> None:
    program = chain([100, 200, 300], overlap=None)
    assert reorder(program) is program


def test_aliases_share_memory_and_keep_it_alive() -> None:
    x, h, y = (Buffer(name, (64,), "int8") for name in "xhy")
    flat = Buffer("flat", (8, 8), "int8")
    program = Program(
        "alias",
        (x,),
        (flat, y),
        (call("one", [x], [h], (0,)), call("two", [h], [y], (0,))),
        {"flat": h},
    )
    placed = plan(program)
    check(program, placed)
    assert placed.offsets["flat"] == placed.offsets["h"]
    assert placed.arena_bytes == 128


def test_many_layers_are_planned_quickly_and_the_same_way_twice() -> None:
    sizes = [(i * 7919) % 9000 + 64 for i in range(120)]
    program = chain(sizes, overlap=320, scratch=512)
    first = plan(program)
    check(program, first)
    assert first == plan(program)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: dataclasses.replace(p, calls=p.calls[::-1]), "nothing wrote"),
        (lambda p: dataclasses.replace(p, calls=p.calls[:-1]), "nothing writes the output"),
        (
            lambda p: dataclasses.replace(p, inputs=(Buffer("b0", (1,), "int8"),)),
            "two different buffers",
        ),
        (
            lambda p: dataclasses.replace(
                p, aliases={"b1": p.inputs[0], "b0": p.calls[0].outputs[0]}
            ),
            "circle",
        ),
    ],
)
def test_malformed_programs_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(change(chain([10, 20, 30], None)))


@dataclasses.dataclass(frozen=True)
class Board:
    name: str
    ram: int
    flash: int


BOARDS = (
    Board("small", 8192, 65536),
    Board("large", 65536, 524288),
    Board("huge", 1 << 20, 1 << 21),
)


def test_budget_that_suffices_is_silent() -> None:
    check_budget(plan(chain([100, 100], 0)), flash_bytes=1000, ram=100, flash=1000)


def test_budget_error_names_excess_layer_and_board_that_fits() -> None:
    placed = plan(chain([100, 20000, 20000, 10], None))
    with pytest.raises(FewbitsError) as caught:
        check_budget(placed, flash_bytes=70000, ram=8192, flash=65536, devices=BOARDS)
    error = caught.value
    assert error.code == "over-budget"
    assert "31,808 more" in error.message
    assert "4,464 more" in error.message
    assert error.where is not None
    assert "layer1" in error.where
    assert error.hint is not None
    assert error.hint.startswith("it fits large")


def test_budget_error_tells_when_no_board_would_do() -> None:
    placed = plan(chain([1 << 22, 10], None))
    with pytest.raises(FewbitsError, match="does not fit") as caught:
        check_budget(placed, flash_bytes=0, ram=8192, devices=BOARDS)
    assert "largest is huge" in str(caught.value)
