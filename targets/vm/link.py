"""Links a TVM executable into one shared object with zig's linker, for any machine.

zig comes from pip like everything else, so no system compiler is needed; the same executable gives
the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..mcu.toolchain import compiler_command, run_command

if TYPE_CHECKING:
    import tvm

#: Libraries run wherever glibc is at least this old.
_GLIBC = "2.28"


def link(executable: tvm.runtime.Executable, machine: str, path: Path) -> None:
    """Write a shared object.

    Args:
        executable: of `pipeline.make_executable`.
        machine: instruction set as zig names it, e.g. ``x86_64``.
        path: the file.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """

    def link_objects(output: str, objects: Sequence[str], **_: Any) -> None:
        command = [*compiler_command(None), *target_flags(machine), "-shared", "-s"]
        run_command([*command, "-Wl,--build-id=none", "-o", output, *objects, "-lm"])

    link_objects.object_format = "o"  # pyright: ignore[reportFunctionMemberAccess]
    executable.export_library(str(path), fcompile=link_objects)


def target_flags(machine: str) -> list[str]:
    """zig's flags for Linux on a machine; none elsewhere than on Linux, where it takes the host."""
    return ["-target", f"{machine}-linux-gnu.{_GLIBC}"] if sys.platform == "linux" else []
