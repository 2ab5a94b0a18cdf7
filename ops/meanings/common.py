"""What the families share: dtypes, layouts, attributes and arithmetic on narrow integers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import torch

from ...errors import FewbitsError


class Call(Protocol):
    """What a meaning reads of a ``relax.Call`` (TVM's own type hides the attributes' fields)."""

    attrs: Any
    ty: Any


_DTYPES: dict[str, torch.dtype] = {
    "bool": torch.bool,
    **{f"int{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "float8_e5m2": torch.float8_e5m2,
    "float8_e5m2fnuz": torch.float8_e5m2fnuz,
}
#: torch has these types but hardly any arithmetic on them.
_STORAGE_ONLY = (torch.uint16, torch.uint32, torch.uint64)


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch type of a TVM type (or its name).

    Raises:
        FewbitsError: ``unsupported-dtype``.
    """
    name = str(dtype)
    if name not in _DTYPES:
        raise FewbitsError("unsupported-dtype", f"type {name} has no torch counterpart")
    return _DTYPES[name]


def result_dtype(call: Call) -> torch.dtype:
    """The element type that Relax inferred for the call's (first) result."""
    first = call.ty.fields[0] if hasattr(call.ty, "fields") else call.ty
    return torch_dtype(first.dtype)


def is_integer(tensor: torch.Tensor) -> bool:
    """Whether the tensor holds integers (or booleans)."""
    return not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)


def ints(values: Iterable[Any]) -> tuple[int, ...]:
    """Attribute or tensor values as Python ints."""
    if isinstance(values, torch.Tensor):
        return tuple(int(value) for value in values.reshape(-1).tolist())
    return tuple(int(value) for value in values)


def optional_axes(axis: Any) -> tuple[int, ...] | None:
    """An axis attribute, which may be absent, one int or several."""
    if axis is None:
        return None
    return ints(axis) if hasattr(axis, "__len__") else (int(axis),)


def relayout(tensor: torch.Tensor, source: str, target: str) -> torch.Tensor:
    """Permute axes from one layout such as ``"NHWC"`` to another such as ``"NCHW"``.

    Raises:
        FewbitsError: ``unsupported-layout`` for packed layouts such as ``"NCHW4c"``.
    """
    source, target = str(source), str(target)
    if source == target or not target:
        return tensor
    if sorted(source) != sorted(target) or not source.isalpha():
        raise FewbitsError("unsupported-layout", f"cannot turn layout {source} into {target}")
    return tensor.permute([source.index(letter) for letter in target])


def widened(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Compute in int64 what torch cannot compute on uint16, uint32 and uint64; wrap around."""

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        kind = tensors[0].dtype
        if kind not in _STORAGE_ONLY:
            return function(*tensors)
        result = function(*(t.to(torch.int64) if t.dtype == kind else t for t in tensors))
        return result.to(kind) if result.dtype == torch.int64 else result

    return run


def through_float(
    function: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor
) -> torch.Tensor:
    """Apply a function that torch has for floats only; exact for integers below 2^53."""
    if not is_integer(tensor):
        return function(tensor)
    return function(tensor.to(torch.float64)).to(tensor.dtype)


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """A copy as a tensor, also of the types that only ml_dtypes gives NumPy (FP8, bfloat16)."""
    array = np.array(array)
    if array.dtype.kind != "V":
        return torch.from_numpy(array)
    codes = torch.from_numpy(array.view(f"uint{8 * array.dtype.itemsize}"))
    return codes.view(torch_dtype(array.dtype.name))


def share(constant: Any) -> torch.Tensor:
    """A Relax constant as a tensor on the same memory (nothing may write to it)."""
    return torch.from_dlpack(constant.value)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array, the other way round."""
    tensor = tensor.detach().cpu().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if name != "bfloat16" and not name.startswith("float8"):
        return tensor.numpy()
    codes = tensor.view(getattr(torch, f"uint{8 * tensor.itemsize}")).numpy()
    return codes.view(np.dtype(getattr(ml_dtypes, name)))
