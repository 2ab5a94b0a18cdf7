"""``stmatrix``: a warp's fragments to rows in shared memory.

Four 8x8 matrices of 16-bit elements: lane ``l`` holds elements ``2 * (l % 4)`` and the next of row
``l // 4`` of each, and gives the address of row ``l % 8`` of matrix ``l // 8``. (PTX manual,
"stmatrix".)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm.tirx.script import builder

from .ptx import issue

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def store(address: Any, registers: Sequence[Any]) -> None:
    """Store four matrices.

    Args:
        address: uint32, of the lane's row: 16 bytes, at a multiple of 16.
        registers: four uint32, two elements in each.
    """
    issue("stmatrix.sync.aligned.m8n8.x4.shared.b16", address, *registers)
