"""How weights lie in flash: one packing function for each inner product of `kernels/`.

Activations cost a load per use, so the kernels take several output channels at once, and want the
weights of those channels side by side in the order in which they are used.
"""

from __future__ import annotations

import numpy as np

#: The raw sum of a channel pair holds the upper channel times 256 (`pack_pairs`).
PAIR_LIMIT = 2**23


def _pad(array: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    """Zeros behind the end of an axis, up to a multiple."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % multiple)
    return np.pad(array, widths)


def pack_quads(weight: np.ndarray) -> np.ndarray:
    """Weights [O, K] int8 for `fb_*_quads`: [ceil(O/4), K, 4].

    ::

        channels 0-3    k=0: w0 w1 w2 w3 | k=1: w0 w1 w2 w3 | ...
        channels 4-7    k=0: ...                               missing channels are zero
    """
    padded = _pad(weight, 0, 4)
    groups = padded.reshape(-1, 4, padded.shape[1])
    return np.ascontiguousarray(groups.transpose(0, 2, 1))


def table_quads(bias: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """One (bias, multiplier) pair per channel: [ceil(O/4), 4, 2] int32, missing ones zero."""
    rows = np.stack([bias, multiplier], axis=-1).astype(np.int32)
    return np.ascontiguousarray(_pad(rows, 0, 4).reshape(-1, 4, 2))


def pack_bytes(weight: np.ndarray) -> np.ndarray:
    """Weights [O, K] int8 for `fb_*_bytes`: like `pack_quads`, w + 128 as uint8."""
    return (pack_quads(weight).astype(np.int16) + 128).astype(np.uint8)


def table_bytes(
    weight: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: int
) -> np.ndarray:
    """Like `table_quads`, for inputs that a convolution gathers as x + 128: what that adds to the
    sums is off the bias (modulo 2^32, as the kernel adds)."""
    excess = 128 * weight.astype(np.int64).sum(axis=1) << shift
    moved = (bias.astype(np.int64) - excess) & 0xFFFFFFFF
    return table_quads(moved.astype(np.uint32).view(np.int32), multiplier)


def _pairs(array: np.ndarray) -> np.ndarray:
    """Channels [O, ...] two by two, [ceil(O/2), 2, ...]; an odd last one with the one before it,
    a single one with itself."""
    channels = np.arange(len(array))
    if len(array) % 2:
        channels = np.insert(channels, -1, max(len(array) - 2, 0))
    return array[channels].reshape(-1, 2, *array.shape[1:])


def reach(weight: np.ndarray, bias: np.ndarray, shift: int = 0) -> np.ndarray:
    """The largest absolute value of shifted sum and bias, for weights [O, ...] and any input:
    [O] int64."""
    sums = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1) * 128
    return (sums << shift) + np.abs(bias.astype(np.int64))


def pairs_hold(weight: np.ndarray, bias: np.ndarray, shift: int = 0) -> bool:
    """Whether the sums of `pack_pairs` fit, for weights [O, K], bias [O] and any input: the upper
    ones, and with a shift the lower ones too."""
    pairs = _pairs(reach(weight, bias, shift))
    return bool(((pairs if shift else pairs[:, 1]) < PAIR_LIMIT << shift).all())


def pack_pairs(weight: np.ndarray) -> np.ndarray:
    """Weights [O, K] int8 for `fb_*_pairs`: [ceil(O/2), ceil(K/4), 2, 2] int16.

    ::

                            low half         high half
        channels 0, 1   k0: 256 w1 + w0  k2: 256 w1 + w0  |  k1: ...  k3: ...  |  next quad
        channels 2, 3   ...

    Bytes k0 k2 and k1 k3 are what SXTB16 makes of a word of activations. Missing k are zero.
    """
    padded = _pad(_pairs(weight), 2, 4).astype(np.int16)
    halves = 256 * padded[:, 1] + padded[:, 0]
    quads = halves.reshape(len(halves), -1, 2, 2)
    return np.ascontiguousarray(quads.swapaxes(2, 3))


def table_pairs(bias: np.ndarray, multiplier: np.ndarray, shift: int = 0) -> np.ndarray:
    """Per pair of channels the sums' starts 256 b1 + b0 and b0, then m1 and m0: [ceil(O/2), 4].

    With a shift the upper start and the lower summand, b1 and b0 times 2^(8 - shift), and the
    multipliers times 2^shift (see gemm_dsp.h)."""
    starts, factors = _pairs(bias.astype(np.int64)), _pairs(multiplier.astype(np.int64)) << shift
    upper, lower = starts[:, 1], starts[:, 0]
    first = 256 * upper + lower if shift == 0 else upper << (8 - shift)
    second = lower if shift == 0 else lower << (8 - shift)
    columns = [first, second, factors[:, 1], factors[:, 0]]
    rows = np.stack(columns, axis=-1) & 0xFFFFFFFF
    return np.ascontiguousarray(rows.astype(np.uint32).view(np.int32))


def _four_pairs(channels: int) -> int:
    """How many channel pairs a fully connected layer takes four by four."""
    return channels // 2 // 4 * 4


def pack_dense_pairs(weight: np.ndarray) -> np.ndarray:
    """Weights [O, K] int8 for ``fb_dense_pairs``: those of `pack_pairs`, in another order.

    ::

        channels 0-7   quad 0: pair 0, pair 1, pair 2, pair 3 | quad 1: ...
        channels 8-15  ...
        the rest       pair by pair as in `pack_pairs`
    """
    pairs = pack_pairs(weight)
    count = _four_pairs(len(weight))
    together = pairs[:count].reshape(-1, 4, *pairs.shape[1:]).swapaxes(1, 2)
    return np.concatenate([together.ravel(), pairs[count:].ravel()])


def table_dense_pairs(bias: np.ndarray, multiplier: np.ndarray, shift: int = 0) -> np.ndarray:
    """`table_pairs`, four pairs' sums' starts before the rest of it: [ceil(O/2) · 4]."""
    table = table_pairs(bias, multiplier, shift)
    count, starts = _four_pairs(len(bias)), 1 if shift else 2
    fours = (
        np.concatenate([four[:, :starts].ravel(), four[:, starts:].ravel()])
        for four in table[:count].reshape(-1, 4, 4)
    )
    return np.concatenate([*fours, table[count:].ravel()])
