"""Everything of a generated project that is not the library itself: build files, self-test, README.

These come from the templates in ``templates/``; the library's own C text is printed by `emit.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from .ctext import decimal_single
from .interface import Interface
from .memory import MemoryPlan
from .names import comment, markdown
from .program import Program
from .target import McuTarget

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "comment": comment,
        "markdown": lambda value: markdown(str(value)),
        "thousands": lambda value: f"{value:,}",
        "decimal": lambda value: decimal_single(value).removesuffix("f"),
    }
    return environment


def scaffold(
    program: Program,
    plan: MemoryPlan,
    target: McuTarget,
    interface: Interface,
    *,
    samples: int,
    constant_bytes: int,
    runtime: Sequence[str],
    info: Mapping[str, object],
) -> dict[str, str | bytes]:
    """The files around the library, by path relative to the project's folder.

    Args:
        program: the model.
        plan: its memory.
        target: what the build files build for.
        interface: names and places of inputs and outputs.
        samples: number of golden samples; without any, the self-test only checks that the model
            runs.
        constant_bytes: flash that the constants take.
        runtime: names of the files in ``runtime/``.
        info: further rows of the README's table.
    """
    linker_scripts = sorted(name for name in runtime if name.endswith(".ld"))
    values = {
        "program": program,
        "plan": plan,
        "target": target,
        "interface": interface,
        "model": interface.model,
        "macro": interface.macro,
        "samples": samples,
        "constant_bytes": constant_bytes,
        "startup": sorted(name for name in runtime if name.endswith((".c", ".S"))),
        "linker_script": linker_scripts[0] if linker_scripts else None,
        "info": info,
        "macs": sum(call.macs for call in program.calls),
    }
    names = {
        "main.c": "main.c.j2",
        "Makefile": "Makefile.j2",
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "README.md": "README.md.j2",
        "LICENSE.txt": "LICENSE.txt.j2",
    }
    if any(port.quantized for port in interface.ports):
        names[f"fewbits_{interface.model}_convert.h"] = "convert.h.j2"
    return {path: _environment().get_template(name).render(values) for path, name in names.items()}
