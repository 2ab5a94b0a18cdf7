"""The microcontroller target's steps, from integer module to a measured binary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import startup
from .elf import symbols, write_binary
from .emit import Golden, constant_bytes, emit
from .integer import IntegerModel
from .interface import Interface
from .lower import lower
from .memory import MemoryPlan, plan, reorder
from .program import Constant, Program
from .startup import MemoryMap
from .target import McuTarget
from .toolchain import build

#: Where built files go, inside the project's folder.
BINARIES = "bin"


@dataclasses.dataclass(frozen=True)
class Firmware:
    """A program with its memory plan, ready to be printed.

    Attributes:
        program: kernel calls.
        plan: the arena.
        target: the core.
        interface: C names of the interface.
        constant_bytes: bytes of constants in flash, equal ones counted once.
        layer_bytes: bytes of constants of each call.
    """

    program: Program
    plan: MemoryPlan
    target: McuTarget
    interface: Interface
    constant_bytes: int
    layer_bytes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Built:
    """Sizes of a built firmware in bytes: of the model's library, without start-up and self-test.

    Attributes:
        text_bytes: code.
        flash_bytes: code and constants.
        static_ram_bytes: variables (none in generated code).
        layer_text: code of each layer's own function, shared kernels excepted.
        compiler: name and version.
    """

    text_bytes: int
    flash_bytes: int
    static_ram_bytes: int
    layer_text: Mapping[str, int]
    compiler: str

    def figures(self) -> dict[str, Any]:
        """What the manifest says at its top level."""
        return {"text_bytes": self.text_bytes, "flash_bytes": self.flash_bytes}


def make_firmware(model: IntegerModel, target: McuTarget, name: str) -> Firmware:
    """Choose kernels, order calls, place buffers.

    Raises:
        FewbitsError: see `lower`.
    """
    program = reorder(lower(model.module, target, name, model.quantization))
    memory = plan(program)
    layer_bytes = tuple(
        sum(a.array.nbytes for a in call.arguments if isinstance(a, Constant))
        for call in program.calls
    )
    return Firmware(
        program,
        memory,
        target,
        Interface.of(program, memory),
        constant_bytes(program),
        layer_bytes,
    )


def map_of(board: str | None) -> MemoryMap | None:
    """The memory map of a board; None for the emulator's roomy one."""
    if board is None:
        return None
    from .boards import get_board

    return get_board(board).memory_map()


def emit_firmware(
    firmware: Firmware,
    folder: Path,
    golden: Golden | None,
    memory: MemoryMap | None,
    info: Mapping[str, object],
) -> None:
    """Write the C project into an existing folder."""
    files = emit(
        firmware.program,
        firmware.plan,
        firmware.target,
        golden=golden,
        info=info,
        memory=memory,
    )
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def build_firmware(
    firmware: Firmware, folder: Path, compiler: str | None, memory: MemoryMap | None
) -> Built:
    """Build the project: ``bin/model.*`` is the library alone, which is measured and run by the
    emulator; ``bin/firmware.*`` adds start-up code and the self-test.

    Raises:
        FewbitsError: ``compiler-failed``, ``compiler-missing``.
    """
    target = firmware.target
    model = firmware.interface.model
    library = [folder / f"fewbits_{model}.c", folder / "weights.c"]
    binaries = folder / BINARIES
    binaries.mkdir(exist_ok=True)
    # Float islands: a fused multiply-add would change the bits from core to core.
    exact = ("-ffp-contract=off",)
    if target.family == "host":
        built = build(
            library, target, binaries / "model.so", include=[folder], shared=True,
            compiler=compiler, extra=exact,
        )  # fmt: skip
    else:
        built = build(
            library, target, binaries / "model.elf", include=[folder],
            roots=[f"{model}_run"], compiler=compiler, extra=exact,
        )  # fmt: skip
        sources = [*library, *(p for p in (folder / "main.c", folder / "golden.c") if p.exists())]
        runtime = [folder / "runtime" / p.name for p in startup.startup_sources(target)]
        (script,) = (folder / "runtime").glob("*.ld")
        elf = binaries / "firmware.elf"
        build(
            [*sources, *runtime], target, elf, include=[folder], linker_script=script,
            compiler=compiler, extra=exact,
        )  # fmt: skip
        write_binary(elf, binaries / "firmware.bin")
    layer_text = {
        name: symbol.size
        for name, symbol in symbols(built.elf).items()
        if name.startswith("fb_layer_")
    }
    sizes = built.sizes
    return Built(sizes.text, sizes.flash, sizes.ram, layer_text, built.compiler)
