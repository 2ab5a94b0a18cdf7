"""Codes of fewer than 8 bits in bytes without gaps.

Codes follow each other in one stream of bits, in C order of the tensor, with no alignment but a
last byte filled with zero bits. Two orders are in use:

- ``low-first``: the first code has the lowest bits of the first byte. For 4 bits: the first element
  in the low nibble, as in ONNX INT4/UINT4 and MatMulNBits. Ours unless said otherwise.
- ``high-first``: the first code has the highest bits, as if written down. For 4 bits: the first
  element in the high nibble, as in bitsandbytes.

A code's own bits never turn round: in both orders bit 0 is the code's lowest.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import check_bits

Bytes = npt.NDArray[np.uint8]
BitOrder = Literal["low-first", "high-first"]

# Codes expanded to single bits at a time; a multiple of 8, so that pieces end on whole bytes.
_CHUNK = 1 << 18


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` codes."""
    return -(-count * bits // 8)


def pack(codes: npt.ArrayLike, bits: int, order: BitOrder = "low-first") -> Bytes:
    """Codes of any shape as a flat array of bytes.

    Raises:
        FewbitsError: ``bad-code`` where a code has more than `bits` bits.
    """
    _check(bits, order)
    flat = np.asarray(codes).reshape(-1)
    if flat.size and (int(flat.max()) >> bits or int(flat.min()) < 0):
        raise FewbitsError("bad-code", f"a code has more than {bits} bits")
    flat = flat.astype(np.uint8, copy=False)
    if bits == 8:
        return flat.copy()
    if bits == 4:
        pairs = np.pad(flat, (0, flat.size % 2)).reshape(-1, 2)
        low, high = (0, 1) if order == "low-first" else (1, 0)
        return pairs[:, low] | (pairs[:, high] << np.uint8(4))
    little = order == "low-first"
    packed = np.empty(packed_size(flat.size, bits), np.uint8)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK, None]
        if little:
            single = np.unpackbits(part, axis=1, count=bits, bitorder="little")
            done = np.packbits(single, bitorder="little")
        else:
            done = np.packbits(np.unpackbits(part, axis=1)[:, 8 - bits :])
        at = start * bits // 8
        packed[at : at + done.size] = done
    return packed


def unpack(
    packed: npt.NDArray[np.uint8], bits: int, count: int, order: BitOrder = "low-first"
) -> Bytes:
    """The `count` codes in `packed`, flat.

    Raises:
        FewbitsError: ``bad-packing`` where `packed` is not what `count` codes take; told before
            anything of that size is allocated.
    """
    _check(bits, order)
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or count < 0 or packed.size != packed_size(count, bits):
        raise FewbitsError(
            "bad-packing",
            f"{count} codes of {bits} bits take {packed_size(count, bits)} bytes, "
            f"not {packed.size} of {packed.dtype}",
        )
    packed = packed.reshape(-1)
    if bits == 8:
        return packed.copy()
    if bits == 4:
        low, high = packed & np.uint8(15), packed >> np.uint8(4)
        pairs = (low, high) if order == "low-first" else (high, low)
        return np.stack(pairs, axis=1).reshape(-1)[:count]
    codes = np.empty(count, np.uint8)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        at = start * bits // 8
        part = packed[at : at + packed_size(size, bits)]
        if order == "low-first":
            single = np.unpackbits(part, count=size * bits, bitorder="little").reshape(size, bits)
            done = np.packbits(single, axis=1, bitorder="little")
        else:
            single = np.unpackbits(part, count=size * bits).reshape(size, bits)
            done = np.packbits(single, axis=1) >> np.uint8(8 - bits)
        codes[start : start + size] = done[:, 0]
    return codes


def _check(bits: int, order: BitOrder) -> None:
    check_bits(bits, 1, 8, "packed")
    if order not in ("low-first", "high-first"):
        raise FewbitsError("bad-packing", f"the bit order is low-first or high-first, not {order}")
