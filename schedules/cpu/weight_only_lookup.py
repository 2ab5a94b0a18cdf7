"""Few rows times binary planes: four signs at a time are looked up in tables of signed sums.

Four values of x have 16 sums with signs, as many as a register holds, so one instruction finds the
sums of four products for all lanes of a panel, and nothing is decoded or multiplied; a group's sum
of each plane is multiplied by its scale at the group's end (spec 5, LUT-GEMM). The tables of a row
are made once; all panels read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import broadcast, multiply_add
from .intrinsics_emit import fill, index, lanes_of, local, ramp, store
from .intrinsics_epilogue import Output
from .intrinsics_lookup import Lookup
from .weight_only_walk import WeightStream

if TYPE_CHECKING:
    from .weight_only_linear import WeightOnlyLinear

#: Numbers of rows that look up.
LOOKED_UP = (1, 2, 3, 4)
#: Values of a table, and its entries.
_VALUES, _ENTRIES = 4, 16
#: Values of a word of signs, and tables of them.
_WORD = 32
_TABLES = _WORD // _VALUES
#: Sums that stay in registers.
_SUMS = 12


def can_look_up(length: int, group: int) -> bool:
    """Whether groups begin and end with words of signs."""
    return group >= length or group % _WORD == 0


def look_up(
    plan: WeightOnlyLinear, lookup: Lookup, weights: WeightStream, x: Any, rows: int, output: Output
) -> None:
    """Emit the product of a known number of rows.

    Args:
        plan: the kernel.
        lookup: of the processor.
        weights: planes of signs (`PlaneDecoder`); `can_look_up` holds.
        x: the rows, flat.
        rows: how many.
        output: takes the results.
    """
    planes, lanes = plan.scales.planes, plan.lanes
    words = -(-plan.length // _WORD)
    group = min(plan.group, plan.length)
    groups = -(-plan.length // group)
    each = rows * words * _TABLES * _ENTRIES
    tables = T.alloc_buffer((each,), "float32", layout=None)
    plain = T.alloc_buffer((rows * groups,), "float32", layout=None)
    _make(plan, x, rows, tables, plain if plan.scales.offset else None, group)
    width = min(plan.panels, max(1, _SUMS // (planes * rows)))

    def table_of(row: int, word: Any, number: int) -> Any:
        return ((word * _TABLES + number) * rows + row) * _ENTRIES

    def word_of(word: Any, panels: list[Any], sums: list[list[list[Any]]]) -> None:
        loaded = [
            [
                T.Bind(weights.words[panel, word * planes + plane, ramp(0, lanes)])
                for plane in range(planes)
            ]
            for panel in panels
        ]
        for number in range(_TABLES):
            for mine, signs in zip(sums, loaded, strict=True):
                for plane, stored in enumerate(signs):
                    codes: Any = stored
                    if number:
                        by = broadcast(tirx.const(_VALUES * number, "int32"), lanes)
                        codes = T.Bind(tirx.shift_right(stored, by))
                    for row in range(rows):
                        start = table_of(row, word, number)
                        found = lookup.find(tables, _VALUES, codes, start)
                        one = mine[plane][row]
                        store(one, lanes, lanes_of(one, lanes) + found)

    def work(first: Any, count: int) -> None:
        panels = [T.Bind(first + i) for i in range(count)]
        totals = [[local(lanes, "float32") for _ in range(rows)] for _ in panels]
        sums = [
            [[local(lanes, "float32") for _ in range(rows)] for _ in range(planes)] for _ in panels
        ]
        for panel in totals:
            for one in panel:
                fill(one, lanes, 0.0)

        def one_group(number: Any, length: int) -> None:
            for panel in sums:
                for plane in panel:
                    for one in plane:
                        fill(one, lanes, 0.0)
            begin = T.Bind(number * (group // _WORD)) if group % _WORD == 0 else index(0)
            with T.serial(index(0), index(-(-length // _WORD))) as i:
                word_of(T.Bind(begin + i), panels, sums)
            for place, panel in enumerate(panels):
                opened = plan.scales.open(weights.arguments, panel, number, lanes)
                for row in range(rows):
                    one = totals[place][row]
                    total = lanes_of(one, lanes)
                    for plane, scale in enumerate(opened.scales):
                        part = lanes_of(sums[place][plane][row], lanes)
                        total = multiply_add(part, scale, total, lanes)
                    if opened.offset is not None:
                        both = broadcast(plain[number * rows + row], lanes)
                        total = multiply_add(both, opened.offset, total, lanes)
                    store(one, lanes, total)

        full, rest = divmod(plan.length, group)
        if full == 1:
            one_group(index(0), group)
        else:
            with T.serial(index(0), index(full)) as number:
                one_group(number, group)
        if rest:
            one_group(index(full), rest)
        for place, panel in enumerate(panels):
            for row in range(rows):
                output.write(index(row), panel * lanes, lanes_of(totals[place][row], lanes))

    full, rest = divmod(plan.panels, width)
    with T.parallel(index(0), index(full + (rest > 0))) as task:
        unit: Any = task
        if not rest:
            work(T.Bind(unit * width), width)
            return
        with T.If(unit < full):
            with T.Then():
                work(T.Bind(unit * width), width)
            with T.Else():
                work(index(full * width), rest)


def _make(plan: WeightOnlyLinear, x: Any, rows: int, tables: Any, plain: Any, group: int) -> None:
    """Fill the tables, rows side by side; and, for offsets, the sums of groups."""
    lanes, length = min(plan.lanes, _ENTRIES), plan.length
    full = length // _VALUES

    def table(number: Any, row: int, count: int) -> None:
        first = T.Bind(number * _VALUES)
        values = [T.Bind(x[row * length + first + i]) for i in range(count)]
        for half in range(0, _ENTRIES, lanes):
            total: Any = None
            for i, value in enumerate(values):
                term = broadcast(value, lanes) * _signs(i, half, lanes)
                total = term if total is None else total + term
            if total is None:
                total = broadcast(tirx.const(0.0, "float32"), lanes)
            store(tables, lanes, total, (number * rows + row) * _ENTRIES + half)

    with T.serial(index(0), index(full)) as number:
        for row in range(rows):
            table(number, row, _VALUES)
    for number in range(full, -(-length // _WORD) * _TABLES):
        for row in range(rows):
            table(index(number), row, max(0, length - number * _VALUES))
    if plain is None:
        return
    with T.serial(index(0), index(rows * -(-length // group))) as place:
        T.buffer_store(plain, tirx.const(0.0, "float32"), [place])
    with T.serial(index(0), index(length)) as place:
        k: Any = place
        for row in range(rows):
            at = T.Bind(k // group * rows + row)
            T.buffer_store(plain, plain[at] + x[row * length + k], [at])


def _signs(bit: int, first: int, lanes: int) -> Any:
    """1, or -1 where an entry's number has this bit."""
    one, minus = tirx.const(1.0, "float32"), tirx.const(-1.0, "float32")
    if bit == 3 and lanes <= 8:
        return broadcast(minus if first & 8 else one, lanes)
    numbers = tirx.Ramp(tirx.const(first, "int32"), tirx.const(1, "int32"), lanes)
    set_ = tirx.bitwise_and(numbers, broadcast(tirx.const(1 << bit, "int32"), lanes))
    zero = broadcast(tirx.const(0, "int32"), lanes)
    return tirx.Select(set_ == zero, broadcast(one, lanes), broadcast(minus, lanes))
