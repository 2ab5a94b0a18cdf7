"""Kernels of one instruction, and of C++ where nvcc is at hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.cuda import toolchain
from fewbits.targets.cuda.emulator import launch

HEAD = ".version 8.5\n.target sm_90a\n.address_size 64\n"
WIDTHS = {"16": "rs", "32": "r", "64": "rd"}


def kernel(body: str, params: str = "", shared: str = "") -> str:
    """A kernel named k with plenty of registers; `%rd0` and on hold its pointer parameters."""
    names = [name for name in params.split(",") if name]
    declared = ", ".join(f".param .{kind} p{n}" for n, kind in enumerate(names))
    loads = "".join(
        f"ld.param.{kind} {'%rd' if kind == 'u64' else '%r'}{n}, [p{n}];\n"
        for n, kind in enumerate(names)
    )
    return (
        f"{HEAD}.visible .entry k({declared})\n{{\n"
        ".reg .pred %p<20>;\n.reg .b16 %rs<40>;\n.reg .b32 %r<60>;\n.reg .b64 %rd<60>;\n"
        f"{shared}\n{loads}{body}\nret;\n}}\n"
    )


@pytest.fixture
def one() -> Callable[..., np.ndarray]:
    """Runs one instruction on 32 lanes: `$d`, `$a`, `$b`, `$c` are its registers."""

    def run(instruction: str, result: str, *inputs: np.ndarray) -> np.ndarray:
        out = np.zeros(32, result)
        arrays = [out, *(np.ascontiguousarray(value) for value in inputs)]
        body = "mov.u32 %r50, %tid.x;\n"
        for n, array in enumerate(arrays):
            body += f"mul.wide.u32 %rd{20 + n}, %r50, {array.itemsize};\n"
            body += f"add.u64 %rd{20 + n}, %rd{20 + n}, %rd{n};\n"
        text = instruction
        for n, array in enumerate(arrays):
            bits = 8 * array.itemsize
            register = f"%{WIDTHS[str(max(16, bits))]}{30 + n}"
            text = text.replace("$" + "dabc"[n], register)
            if n:
                body += f"ld.global.b{bits} {register}, [%rd{20 + n}];\n"
        bits = 8 * out.itemsize
        store = f"st.global.b{bits} [%rd20], %{WIDTHS[str(max(16, bits))]}30;"
        launch(
            kernel(f"{body}{text}\n{store}", ",".join(["u64"] * len(arrays))), "k", 1, 32, arrays
        )
        return out

    return run


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[str, str], str]:
    """C++ to PTX by nvcc."""

    def make(source: str, architecture: str = "sm_90a", options: Sequence[str] = ()) -> str:
        try:
            nvcc = toolchain.find_nvcc()
        except FewbitsError as error:
            pytest.skip(f"no nvcc: {error}")
        (tmp_path / "k.cu").write_text(source)
        out = tmp_path / "k.ptx"
        subprocess.run(
            [nvcc.path, "-ptx", f"-arch={architecture}", *options, tmp_path / "k.cu", "-o", out],
            check=True,
            capture_output=True,
        )
        return out.read_text()

    return make


@pytest.fixture
def ptx() -> Callable[..., str]:
    """`kernel` as a fixture."""
    return kernel
