"""Prints a program as a C project that a C engineer would accept in review.

Everything has been decided before: which kernels run (`Program`) and where the buffers lie
(`MemoryPlan`). The generated library allocates nothing, keeps no state between calls, includes only
``<stddef.h>``, ``<stdint.h>`` and the kernels it uses, and is the same text in every run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from . import ctext
from .interface import Interface, Port
from .layers import LayerPrinter
from .memory import MemoryPlan
from .names import comment
from .program import DTYPE_BYTES, Program
from .scaffold import scaffold
from .startup import MemoryMap, linker_script, startup_sources
from .tables import Golden, constant_bytes, golden_files, tables_of, weights_header, weights_source
from .target import McuTarget

__all__ = ["KERNELS", "Golden", "constant_bytes", "emit"]

KERNELS = Path(__file__).parent / "kernels"
"""Where kernel headers are looked for."""

# Index arithmetic that was put together piece by piece.
_OBVIOUS_BEGIN = """\
#if defined(__clang__)
#pragma clang diagnostic push /* conditions that are never true, as where padding is padded */
#pragma clang diagnostic ignored "-Wtautological-compare"
#endif
"""
_OBVIOUS_END = """\
#if defined(__clang__)
#pragma clang diagnostic pop
#endif
"""

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"[^\n]*\n?', re.MULTILINE)


def emit(
    program: Program,
    plan: MemoryPlan,
    target: McuTarget,
    *,
    golden: Golden | None = None,
    info: Mapping[str, object] | None = None,
    kernels: Path = KERNELS,
    memory: MemoryMap | None = None,
) -> dict[str, str | bytes]:
    """The files of the C project, by path relative to its folder.

    Args:
        program: what to print.
        plan: where its buffers lie; made from this very program.
        target: chooses start-up code and the compiler's flags in the build files.
        golden: samples for the self-test in ``main.c``.
        info: rows for the table in ``README.md``, e.g. ``{"recipe": "int8"}``.
        kernels: the folder of kernel headers.
        memory: the chip's memories for the linker script; None for the roomy map that only the
            emulator has. The host needs none.

    Raises:
        ValueError: the program is malformed (see `liveness.analyze`), needs a kernel header that
            does not exist, or golden samples do not have the interface's shapes and dtypes.
    """
    interface = Interface.of(program, plan)
    tables, table_of = tables_of(program, interface.model)
    headers = _kernel_headers(program, kernels)
    printer = LayerPrinter(program, plan, interface, table_of)
    files: dict[str, str | bytes] = {
        f"fewbits_{interface.model}.h": _header(program, plan, interface),
        f"fewbits_{interface.model}.c": _source(program, interface, printer),
        "weights.h": weights_header(interface, tables),
        "weights.c": weights_source(tables),
    }
    if any(call.source for call in program.calls):
        files["generated.h"] = _generated(program, interface)
    files |= {f"kernels/{name}": text for name, text in headers.items()}
    samples = 0
    if golden is not None:
        samples, files["golden.h"], files["golden.c"] = golden_files(interface, golden)
    runtime = _runtime(target, memory)
    files |= {f"runtime/{name}": text for name, text in runtime.items()}
    files |= scaffold(
        program,
        plan,
        target,
        interface,
        samples=samples,
        constant_bytes=sum(table.array.nbytes for table in tables),
        runtime=tuple(runtime),
        info=info or {},
    )
    return files


# Kernels.


def _kernel_headers(program: Program, folder: Path) -> dict[str, str]:
    """The headers that the calls name and all they include, by file name."""
    found: dict[str, str] = {}
    waiting = [call.header for call in program.calls if call.header is not None]
    waiting += [name for call in program.calls for name in _INCLUDE.findall(call.source or "")]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = folder / name
        if not path.is_file():
            raise ValueError(f"there is no kernel header {name!r} in {folder}")
        found[name] = path.read_text(encoding="utf-8")
        waiting += _INCLUDE.findall(found[name])
    return dict(sorted(found.items()))


def _included(program: Program) -> list[str]:
    """The kernel headers to include, each once, in the order of first use."""
    names: dict[str, None] = {}
    for call in program.calls:
        if call.header is not None:
            names[call.header] = None
    return list(names)


def _generated(program: Program, interface: Interface) -> str:
    """Functions generated for single calls; what they include is included once, before them."""
    guard = f"FEWBITS_{interface.macro}_GENERATED_H"
    sources = {call.source: None for call in program.calls if call.source}
    includes = dict.fromkeys(name for text in sources for name in _INCLUDE.findall(text))
    bodies = "\n".join(_INCLUDE.sub("", text).strip("\n") + "\n" for text in sources)
    return (
        "/* Operators without a kernel of their own, generated for this model. */\n"
        f"#ifndef {guard}\n#define {guard}\n\n#include <stddef.h>\n#include <stdint.h>\n"
        + "".join(f'#include "kernels/{name}"\n' for name in includes)
        + f"\n{_OBVIOUS_BEGIN}\n{bodies}\n{_OBVIOUS_END}\n#endif\n"
    )


def _runtime(target: McuTarget, memory: MemoryMap | None) -> dict[str, str]:
    """Start-up code and linker script for a bare core, by file name."""
    if target.family == "host":
        return {}
    files = {path.name: path.read_text(encoding="utf-8") for path in startup_sources(target)}
    return files | {"memory.ld": linker_script(target, memory)}


# The interface.


def _header(program: Program, plan: MemoryPlan, interface: Interface) -> str:
    macro = interface.macro
    guard = f"FEWBITS_{macro}_H"
    floats = "" if interface.integer_only else " Parts of it compute in floating point."
    lines = [
        f"/* {comment(program.name)}: a neural network compiled by fewbits.",
        " *",
        f" * {interface.model}_run() computes the outputs from the inputs. It needs an arena of",
        f" * {macro}_ARENA_BYTES bytes, aligned to {macro}_ARENA_ALIGNMENT, whose contents before",
        " * and after do not matter. Nothing is kept between calls: several threads may run the",
        f" * model at once, each with an arena of its own.{floats}",
        " *",
        " * Inputs and outputs may be separate arrays, or lie in the arena at the offsets given",
        f" * below ({interface.inputs[0].macro if interface.inputs else macro}_IN(arena)), which"
        " saves their memory; an input in the",
        " * arena does not survive the call. Pointers are aligned like int32_t (int64_t data like",
        " * int64_t).",
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define {macro}_ARENA_BYTES {plan.arena_bytes}",
        f"#define {macro}_ARENA_ALIGNMENT 8",
        "",
    ]
    for port in interface.ports:
        lines += [*_port_macros(port), ""]
    lines += [
        "/* What the function returns. */",
        f"#define {macro}_OK 0",
        f"#define {macro}_ERROR_NULL (-1)      /* a pointer is NULL */",
        f"#define {macro}_ERROR_ALIGNMENT (-2) /* a pointer is not aligned */",
        "",
        f"{_prototype(interface)};",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _port_macros(port: Port) -> list[str]:
    buffer = port.buffer
    shape = ", ".join(map(str, buffer.shape))
    lines = [
        f'/* {port.role} "{comment(port.name)}": {buffer.dtype} [{shape}] */',
        f"#define {port.macro}_NAME {port.c_name}",
        f"#define {port.macro}_ELEMENTS {port.elements}",
        f"#define {port.macro}_RANK {len(buffer.shape)}",
        *(f"#define {port.macro}_DIM_{axis} {size}" for axis, size in enumerate(buffer.shape)),
        f"#define {port.macro}_OFFSET {port.offset}",
        f"#define {port.macro}_IN(arena) "
        f"(({port.c_type} *)(void *)((uint8_t *)(arena) + {port.macro}_OFFSET))",
    ]
    if port.quantized:
        lines += [
            f"#define {port.macro}_SCALE {ctext.decimal_single(buffer.scale or 0.0)}"
            f" /* real = (code - zero point) * scale */",
            f"#define {port.macro}_ZERO_POINT ({ctext.integer(buffer.zero_point)})",
        ]
    return lines


def _prototype(interface: Interface) -> str:
    parameters = [
        *(f"const {port.c_type} *{port.parameter}" for port in interface.inputs),
        *(f"{port.c_type} *{port.parameter}" for port in interface.outputs),
        "void *arena",
    ]
    text = f"int {interface.model}_run({', '.join(parameters)})"
    if len(text) < ctext.COLUMNS:
        return text
    return f"int {interface.model}_run(\n{ctext.filled(parameters, '    ', ctext.COLUMNS - 1)})"


# The layers.

_LAYER_MACRO = """\
/* A layer is a function of its own, so that profilers and debuggers see it. */
#if defined(__clang__)
#define FB_LAYER static __attribute__((noinline))
#else
#define FB_LAYER static __attribute__((noinline, noclone, no_icf))
#endif
"""


def _source(program: Program, interface: Interface, printer: LayerPrinter) -> str:
    model, macro = interface.model, interface.macro
    parts = [
        f"/* {comment(program.name)}: layers, and the function that calls them in order. */\n"
        f'#include "fewbits_{model}.h"\n\n#include <stddef.h>\n\n#include "weights.h"\n'
        + "".join(f'#include "kernels/{name}"\n' for name in _included(program))
        + ('#include "generated.h"\n' if any(call.source for call in program.calls) else ""),
        _LAYER_MACRO,
    ]
    steps: list[str] = []
    uses_arena = False
    for position, kernel in enumerate(program.calls):
        text, arguments, in_arena = printer.layer(position, kernel)
        parts.append(text)
        steps.append(ctext.call(f"fb_layer_{position}", arguments))
        uses_arena = uses_arena or in_arena
    pointers = [*(port.parameter for port in interface.ports), "arena"]
    words = [p.parameter for p in interface.ports if DTYPE_BYTES[p.buffer.dtype] < 8]
    doubles = [name for name in pointers if name not in words]
    missing = ctext.joined("if (", [f"{name} == NULL" for name in pointers], " ||", ") {")
    body = [
        _prototype(interface),
        "{",
        *(["    uint8_t *const base = (uint8_t *)arena;"] if uses_arena else []),
        missing,
        f"        return {macro}_ERROR_NULL;",
        "    }",
        *(
            line
            for names, mask in ((words, 3), (doubles, 7))
            if names
            for line in (
                ctext.joined(
                    "if (((",
                    [f"(uintptr_t){name}" for name in names],
                    " |",
                    f") & {mask}u) != 0u) {{",
                ),
                f"        return {macro}_ERROR_ALIGNMENT;",
                "    }",
            )
        ),
        *steps,
        f"    return {macro}_OK;",
        "}",
    ]
    return "\n".join(parts) + "\n" + "\n".join(body) + "\n"
