"""Numbers and arrays as C99 text: exact, the same on every host, and free of warnings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

C_TYPES = {
    "bool": "uint8_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "float32": "float",
}
"""C type of an array's elements, by dtype name."""

COLUMNS = 100


def integer(value: int) -> str:
    """A C expression of that value, of type int where it fits 32 bits and long long otherwise.

    Raises:
        ValueError: the value does not fit 64 bits.
    """
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} does not fit 64 bits")
    if value == -(2**31):
        return "(-2147483647 - 1)"
    if value == -(2**63):
        return "(-9223372036854775807LL - 1)"
    return str(value) if -(2**31) < value < 2**31 else f"{value}LL"


def single(value: float) -> str:
    """A C expression of type float with exactly the value of ``np.float32(value)``."""
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    if math.isnan(rounded):
        return '__builtin_nanf("")'
    if math.isinf(rounded):
        return "__builtin_inff()" if rounded > 0 else "(-__builtin_inff())"
    if rounded == int(rounded) and abs(rounded) < 2**24:
        return f"{rounded:.1f}f"
    mantissa, exponent = rounded.hex().split("p")
    mantissa = mantissa.rstrip("0") if "." in mantissa else mantissa
    return f"{mantissa.rstrip('.')}p{exponent}f"


def decimal_single(value: float) -> str:
    """`value` in the shortest decimal form that reads back as the same float, for people."""
    text = str(np.float32(value))
    return text + ("f" if any(c in text for c in ".en") else ".0f")


def elements(array: np.ndarray) -> Iterator[str]:
    """The elements of an array in C order, each as a C constant expression."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == np.float32:
        return (single(value) for value in flat.tolist())
    if flat.dtype == np.uint32:
        return (f"{value}u" for value in flat.tolist())
    if flat.dtype in (np.int32, np.int64):
        return (integer(value) for value in flat.tolist())
    return (str(int(value)) for value in flat.tolist())


def filled(items: Iterable[str], indent: str, columns: int = COLUMNS) -> str:
    """Items separated by commas, broken into indented lines no longer than `columns`."""
    lines: list[str] = []
    line: list[str] = []
    width = len(indent)
    for item in items:
        if line and width + len(item) + 1 > columns:
            lines.append(indent + " ".join(line))
            line, width = [], len(indent)
        line.append(item + ",")
        width += len(item) + 2
    if line:
        lines.append(indent + " ".join(line))
    return "\n".join(lines).removesuffix(",")


def array_declaration(name: str, array: np.ndarray, alignment: int) -> str:
    """``const int8_t name[12] __attribute__((aligned(4)))``, to declare and to define with.

    Without the attribute a declaration promises what the ABI does (16 bytes for larger arrays on
    x86-64), which a definition that has it does not keep. An empty array is declared with one
    element, as C demands.

    Raises:
        ValueError: C has no type for the array's elements.
    """
    if array.dtype.name not in C_TYPES:
        raise ValueError(f"{name}: no C type for {array.dtype.name}")
    size = max(1, array.size)
    return f"const {C_TYPES[array.dtype.name]} {name}[{size}] __attribute__((aligned({alignment})))"


def array_definition(name: str, array: np.ndarray, alignment: int) -> str:
    """The definition of a constant array, aligned to that many bytes."""
    body = filled(elements(array), "    ") if array.size else "    0"
    return f"{array_declaration(name, array, alignment)} = {{\n{body}\n}};\n"


def call(function: str, arguments: Iterable[str], indent: str = "    ") -> str:
    """The statement ``function(arguments);``, wrapped and indented."""
    arguments = list(arguments)
    line = f"{indent}{function}({', '.join(arguments)});"
    if len(line) <= COLUMNS:
        return line
    return f"{indent}{function}(\n{filled(arguments, indent + '    ', COLUMNS - 1)});"


def joined(
    before: str, terms: Sequence[str], between: str, after: str, indent: str = "    "
) -> str:
    """``before a || b || c after`` on one indented line, or one line for each term."""
    line = indent + before + f"{between} ".join(terms) + after
    if len(line) <= COLUMNS:
        return line
    return indent + before + f"{between}\n{indent}    ".join(terms) + after
