"""The microcontroller targets: what a core can do, and how compilers and the emulator name it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...errors import FewbitsError, nearest
from ..base import Kind, Request, Target

if TYPE_CHECKING:
    from tvm import ir

    from .product import McuProduct
    from .runner import Runner


@dataclasses.dataclass(frozen=True)
class McuTarget(Target):
    """A core family that firmware is generated for.

    Attributes:
        name: as in ``--target``.
        family: ``"arm"``, ``"riscv"`` or ``"host"``.
        dsp: has the Armv7E-M / Armv8-M DSP instructions (SMLAD, SXTB16, SSAT ...).
        long_multiply: has a 32x32 to high-half multiply (SMULL/SMMUL, MULH).
        zig_flags: flags of ``zig cc`` that select the core.
        gcc_flags: flags of the GNU cross compiler (``--cc``) that select the core.
        gcc: usual name of the GNU cross compiler.
        emulator_cpu: name of the unicorn CPU model, None for the host.
        description: one line for ``fewbits targets``.
    """

    name: str
    family: Literal["arm", "riscv", "host"]
    dsp: bool
    long_multiply: bool
    zig_flags: tuple[str, ...]
    gcc_flags: tuple[str, ...]
    gcc: str
    emulator_cpu: str | None
    description: str

    kind: ClassVar[Kind] = "mcu"
    oracle: ClassVar[str] = "integer"

    def lower(self, module: ir.IRModule, request: Request) -> McuProduct:
        """Integer-only arithmetic, kernels, memory plan.

        Raises:
            FewbitsError: see `lower.lower`.
        """
        from .product import make_product

        return make_product(module, self, request)

    def open(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        strict: bool = False,
        threads: int | None = None,
    ) -> Runner:
        """The emulator, or the library on this machine; one thread always.

        Raises:
            FewbitsError: ``no-such-file``, ``bad-elf``.
        """
        from .product import signature_of
        from .runner import make_runner

        del threads
        binary = "model.so" if self.family == "host" else "model.elf"
        signature = signature_of(manifest)
        return make_runner(folder / "bin" / binary, self, signature, strict=strict)


def _arm(
    name: str, cpu: str, gcc_cpu: str, emulator: str, dsp: bool, long_multiply: bool, text: str
) -> McuTarget:
    # zig's core names leave the optional units out; only cores that name one have an FPU.
    fpu = "fp" in cpu
    return McuTarget(
        name=name,
        family="arm",
        dsp=dsp,
        long_multiply=long_multiply,
        zig_flags=("-target", f"thumb-freestanding-eabi{'hf' if fpu else ''}", f"-mcpu={cpu}"),
        gcc_flags=(
            "-mthumb",
            f"-mcpu={gcc_cpu}",
            *(("-mfloat-abi=hard", "-mfpu=auto") if fpu else ("-mfloat-abi=soft",)),
        ),
        gcc="arm-none-eabi-gcc",
        emulator_cpu=emulator,
        description=text,
    )


TARGETS: dict[str, McuTarget] = {
    target.name: target
    for target in (
        _arm(
            "cortex-m0plus",
            "cortex_m0plus",
            "cortex-m0plus",
            "UC_CPU_ARM_CORTEX_M0",
            False,
            False,
            "Armv6-M: 32-bit multiply, no DSP, no long multiply",
        ),
        _arm(
            "cortex-m3",
            "cortex_m3",
            "cortex-m3",
            "UC_CPU_ARM_CORTEX_M3",
            False,
            True,
            "Armv7-M: long multiply, no DSP",
        ),
        _arm(
            "cortex-m4",
            "cortex_m4+vfp4d16sp",
            "cortex-m4",
            "UC_CPU_ARM_CORTEX_M4",
            True,
            True,
            "Armv7E-M with DSP: two 16-bit multiply-accumulates an instruction",
        ),
        _arm(
            "cortex-m7",
            "cortex_m7+fp_armv8d16",
            "cortex-m7",
            "UC_CPU_ARM_CORTEX_M7",
            True,
            True,
            "Armv7E-M with DSP, dual issue",
        ),
        _arm(
            "cortex-m33",
            "cortex_m33+dsp+fp_armv8d16sp",
            "cortex-m33",
            "UC_CPU_ARM_CORTEX_M33",
            True,
            True,
            "Armv8-M Mainline with DSP",
        ),
        McuTarget(
            name="rv32imc",
            family="riscv",
            dsp=False,
            long_multiply=True,
            zig_flags=(
                "-target",
                "riscv32-freestanding-none",
                "-mcpu=generic_rv32+m+c",
                "-mabi=ilp32",
            ),
            gcc_flags=("-march=rv32imc", "-mabi=ilp32"),
            gcc="riscv64-unknown-elf-gcc",
            emulator_cpu="UC_CPU_RISCV32_ANY",
            description="RISC-V with multiply and compressed instructions",
        ),
        McuTarget(
            name="c",
            family="host",
            dsp=False,
            long_multiply=True,
            zig_flags=(),
            gcc_flags=(),
            gcc="cc",
            emulator_cpu=None,
            description="portable C99, built and run on this machine",
        ),
    )
}


def get_target(name: str) -> McuTarget:
    """The target of that name.

    Raises:
        FewbitsError: ``unknown-target``, with the nearest known name.
    """
    if name not in TARGETS:
        raise FewbitsError(
            "unknown-target", f"unknown target {name!r}", hint=nearest(name, TARGETS)
        )
    return TARGETS[name]
