"""The copy engine (TMA): boxes of a matrix between global and shared memory.

A tensor map, encoded on the host at each call, holds the matrix's address and extents, the box and
how its rows lie in shared memory. Rows of a box here have 128 bytes or fewer and lie 128 bytes
apart; with the 128-byte swizzle the 16-byte chunk `c` of row `r` lies at chunk `c ^ (r % 8)`, so
columns of chunks touch all banks. What a box has outside of the matrix reads as zero and is not
written. (PTX manual, "Tensors", "Swizzling modes", "cp.async.bulk.tensor".)
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from .ptx import issue

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Bytes of a box's row in shared memory, and of the pattern of eight rows that the swizzle repeats.
ROW, PATTERN = 128, 1024

#: cuda.h: CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B.
_SWIZZLE_128, _PROMOTE_256 = 3, 3

_LOAD = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"


def encode(data: Any, item: int, rows: Any, columns: int, box: tuple[int, int]) -> Any:
    """A tensor map of a matrix, row by row, made on the host.

    Args:
        data: the matrix's pointer.
        item: bytes of an element, 1 or 2; what it means does not matter to a copy.
        rows: of the matrix, may be an expression.
        columns: of the matrix; a row is a multiple of 16 bytes.
        box: rows and columns of what one copy moves; its rows are 128 bytes.
    """
    stack = T.tvm_stack_alloca("tensormap", 1)
    tensor_map = T.Bind(stack, T.TensorMap().ty)
    numbers = (columns, rows, columns * item, box[1], box[0], 1, 1, 0, _SWIZZLE_128, _PROMOTE_256)
    T.evaluate(
        T.call_packed(
            "runtime.cuTensorMapEncodeTiled",
            tensor_map,
            {1: "uint8", 2: "uint16"}[item],
            2,
            data,
            *numbers,
            0,
        )
    )
    return tensor_map


def load(destination: Any, tensor_map: Any, place: tuple[Any, Any], barrier: Any) -> None:
    """Start copying a box in; its bytes count at the barrier.

    Args:
        destination: address of the box, a multiple of 1024.
        tensor_map: from `encode`.
        place: row and column, int32, of the box's first element.
        barrier: address of an `mbarrier`.
    """
    issue(_LOAD, destination, T.address_of(tensor_map), place[1], place[0], barrier)


def load_shared(
    destination: Any, tensor_map: Any, place: tuple[Any, Any], barrier: Any, mask: Any
) -> None:
    """Like `load`, to the same address of every block of the cluster whose bit `mask` has.

    The bytes count at the barrier at the same place of each of these blocks.
    """
    issue(
        _LOAD + ".multicast::cluster",
        destination,
        T.address_of(tensor_map),
        place[1],
        place[0],
        barrier,
        tirx.Cast("uint16", mask),
    )


def store(tensor_map: Any, place: tuple[Any, Any], source: Any) -> None:
    """Start copying a box out, as one more group of the thread's; see `stored`."""
    issue(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group",
        T.address_of(tensor_map),
        place[1],
        place[0],
        source,
    )
    issue("cp.async.bulk.commit_group")


def stored(pending: int, *, read: bool = False) -> None:
    """Wait until all but the `pending` latest of this thread's groups are done.

    Args:
        pending: how many may be under way.
        read: only until shared memory has been read, not until global memory is written.
    """
    issue("cp.async.bulk.wait_group" + (".read" if read else ""), pending)


def visible() -> None:
    """What this thread stored to shared memory is seen by the copy engine after a barrier."""
    issue("fence.proxy.async.shared::cta")
