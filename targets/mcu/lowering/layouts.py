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
    """One (bias, multiplier) pair per channel: [O, 2] int32."""
    return np.ascontiguousarray(np.stack([bias, multiplier], axis=-1), dtype=np.int32)
