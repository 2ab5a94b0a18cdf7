"""One PTX instruction as a statement of the function being built."""

from __future__ import annotations

from typing import Any

from tvm.tirx.script import builder

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def issue(instruction: str, *operands: Any) -> None:
    """Emit an instruction of TVM's table.

    Args:
        instruction: as the PTX manual writes it, e.g. ``"mbarrier.init.shared.b64"``.
        operands: in the manual's order. Results are elements of local buffers; addresses in shared
            memory are uint32.
    """
    T.evaluate(T.ptx[instruction](*operands))
