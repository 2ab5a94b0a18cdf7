"""What a tensor of a model may be: dtypes and sizes, checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np

from ...errors import FewbitsError

#: No single tensor of a model may need more memory than this.
LARGEST_TENSOR_BYTES = 2**31

#: dtypes that run-time values may have (Relax and numpy spell them alike).
RUNTIME_DTYPES = frozenset(
    [
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    ]
)


def check_extents(shape: Iterable[int], dtype: str, owner: str) -> None:
    """Refuse a shape with a negative or zero extent or more than `LARGEST_TENSOR_BYTES`.

    Raises:
        FewbitsError: ``invalid-shape``, ``empty-tensor`` or ``tensor-too-large``.
    """
    shape = list(shape)
    if any(extent < 0 for extent in shape):
        raise FewbitsError(
            "invalid-shape",
            f"a tensor of shape {shape}",
            where=owner,
            hint="sizes are positive; symbolic ones are bound with --bind NAME=SIZE",
        )
    if 0 in shape:
        raise FewbitsError(
            "empty-tensor",
            f"a tensor of shape {shape} has no elements",
            where=owner,
            hint="check the input shapes and the dimensions given with --bind",
        )
    size = math.prod(shape) * max(1, np.dtype(_numpy_dtype(dtype)).itemsize)
    if size > LARGEST_TENSOR_BYTES:
        raise FewbitsError(
            "tensor-too-large",
            f"a tensor of shape {shape} and dtype {dtype} needs {size:,} bytes; "
            f"the limit is {LARGEST_TENSOR_BYTES:,}",
            where=owner,
            hint="check the sizes in the model, or make them smaller with --bind",
        )


def _numpy_dtype(dtype: str) -> Any:
    return getattr(ml_dtypes, dtype, None) or dtype
