"""Arrays in flash: the model's constants, stored once each, and the golden samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from . import ctext
from .interface import Interface, Port
from .names import Names, comment, identifier
from .program import Constant, Program

Golden = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]
"""Inputs and outputs, in the order of the interface; each array holds whole samples, the sample
being the first axis, in the dtype of the buffer (codes, not real values)."""

GOLDEN_ALIGNMENT = 8
"""In bytes: that of the widest element."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A constant array as it is stored: its C name, contents, alignment and who uses it first."""

    name: str
    array: np.ndarray
    alignment: int
    layer: str


def _content(constant: Constant) -> tuple[str, bytes]:
    return constant.array.dtype.name, np.ascontiguousarray(constant.array).tobytes()


def tables_of(program: Program, model: str) -> tuple[list[Table], dict[int, str]]:
    """The arrays to store, and the C name of each `Constant` by its ``id``."""
    names = Names()
    stored: dict[tuple[str, bytes], Table] = {}
    name_of: dict[int, str] = {}
    for position, kernel in enumerate(program.calls):
        for argument in kernel.arguments:
            if not isinstance(argument, Constant):
                continue
            key = _content(argument)
            known = stored.get(key)
            if known is None:
                role = identifier(argument.role, "constant")
                name = names.unique(f"{role}_{position}")
                known = Table(f"{model}_{name}", argument.array, argument.alignment, kernel.layer)
            alignment = max(known.alignment, argument.alignment, argument.array.dtype.itemsize)
            stored[key] = dataclasses.replace(known, alignment=alignment)
            name_of[id(argument)] = known.name
    return list(stored.values()), name_of


def weights_header(interface: Interface, tables: Sequence[Table]) -> str:
    """``weights.h``: the declarations of the tables."""
    guard = f"FEWBITS_{interface.macro}_WEIGHTS_H"
    declarations = "".join(
        f"extern {ctext.array_declaration(table.name, table.array, table.alignment)};\n"
        for table in tables
    )
    total = sum(table.array.nbytes for table in tables)
    return (
        f"/* The constants of the model: {total} bytes of flash. */\n"
        f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n{declarations}\n#endif\n"
    )


def weights_source(tables: Sequence[Table]) -> str:
    """``weights.c``: the definitions of the tables."""
    parts = ['#include "weights.h"\n']
    for table in tables:
        shape = "x".join(map(str, table.array.shape)) or "1"
        parts.append(
            f"/* {comment(table.layer)}: {shape} {table.array.dtype.name} */\n"
            + ctext.array_definition(table.name, table.array, table.alignment)
        )
    return "\n".join(parts)


def constant_bytes(program: Program) -> int:
    """Bytes of flash that the constants of `program` take, equal arrays counted once."""
    tables, _ = tables_of(program, "model")
    return sum(table.array.nbytes for table in tables)


def golden_files(interface: Interface, golden: Golden) -> tuple[int, str, str]:
    """The number of samples, and the text of ``golden.h`` and ``golden.c``.

    Raises:
        ValueError: the samples do not have the interface's shapes and dtypes, or there are none.
    """
    arrays: list[tuple[Port, np.ndarray]] = []
    counts: set[int] = set()
    for ports, values in ((interface.inputs, golden[0]), (interface.outputs, golden[1])):
        if len(ports) != len(values):
            raise ValueError(f"{len(values)} golden arrays for {len(ports)} {ports[0].role}s")
        for port, value in zip(ports, values, strict=True):
            array = np.asarray(value)
            if array.dtype.name != port.buffer.dtype:
                raise ValueError(f"golden {port.buffer.name!r} has dtype {array.dtype.name}")
            if array.size % port.elements:
                raise ValueError(f"golden {port.buffer.name!r} does not hold whole samples")
            counts.add(array.size // port.elements)
            arrays.append((port, array.reshape(-1, port.elements)))
    if len(counts) != 1 or counts == {0}:
        raise ValueError(f"golden arrays hold different numbers of samples: {sorted(counts)}")
    (count,) = counts
    guard = f"FEWBITS_{interface.macro}_GOLDEN_H"
    header = [
        "/* Inputs, and the outputs that the model must give for them. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        f"#define {interface.macro}_GOLDEN_COUNT {count}",
        "",
    ]
    source = ['#include "golden.h"\n']
    for port, array in arrays:
        name = f"{interface.model}_golden_{port.label}"
        header.append(f"extern {ctext.array_declaration(name, array, GOLDEN_ALIGNMENT)};")
        source.append(ctext.array_definition(name, array, GOLDEN_ALIGNMENT))
    header += ["", "#endif"]
    return count, "\n".join(header) + "\n", "\n".join(source)
