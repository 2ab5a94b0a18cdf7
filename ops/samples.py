"""The inputs of a run: many samples at once, and the sizes of symbolic dimensions they imply."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import FewbitsError
from .meanings.common import from_numpy, torch_dtype
from .symbolic import Extent, evaluate, extents_of, is_symbol


def leading_symbol(parameters: Sequence[Any]) -> Any | None:
    """The symbolic dimension that is the first of every parameter, or None."""
    firsts: list[Any] = [next(iter(extents_of(parameter)), None) for parameter in parameters]
    if not firsts or not is_symbol(firsts[0]):
        return None
    return firsts[0] if all(is_symbol(f) and f.same_as(firsts[0]) for f in firsts) else None


def match(
    values: Mapping[Any, torch.Tensor],
    mapped: bool = False,
    largest: Mapping[str, int] | None = None,
) -> dict[Any, int]:
    """The sizes of the symbolic dimensions in the parameters' types.

    Args:
        values: a tensor for each parameter.
        mapped: whether each has one more axis in front, for samples.
        largest: sizes that symbolic dimensions of these names may not exceed.

    Raises:
        FewbitsError: ``bad-input`` where a shape contradicts the declared one, or another input's,
            or is too large.
    """
    sizes: dict[Any, int] = {}
    owners: dict[Any, str] = {}
    shapes = {p: tuple(value.shape)[1 if mapped else 0 :] for p, value in values.items()}
    for parameter, shape in shapes.items():
        declared = extents_of(parameter)
        if len(declared) != len(shape):
            raise _mismatch(parameter, shape, declared)
        extent: Any
        for extent, size in zip(declared, shape, strict=True):
            if not is_symbol(extent):
                continue
            if sizes.setdefault(extent, size) != size:
                raise FewbitsError(
                    "bad-input",
                    f"dimension {extent.name!r} is {size} here but {sizes[extent]} in input "
                    f"{owners[extent]!r}",
                    where=parameter.name,
                )
            owners.setdefault(extent, parameter.name)
            if size > (largest or {}).get(extent.name, size):
                limit = (largest or {})[extent.name]
                raise FewbitsError(
                    "bad-input",
                    f"dimension {extent.name!r} is {size}; the model allows {limit}",
                    where=parameter.name,
                )
    for parameter, shape in shapes.items():
        declared = extents_of(parameter)
        if tuple(evaluate(extent, sizes) for extent in declared) != shape:
            raise _mismatch(parameter, shape, declared)
    return sizes


def fill(parameter: Any, samples: np.ndarray | torch.Tensor, mapped: bool) -> torch.Tensor:
    """Samples in the type and shape that a parameter declares.

    Args:
        parameter: one for a batch of 1 (or without batch), or, unless `mapped`, one whose first
            dimension is the batch.
        samples: the first axis counts samples. The axes of a sample may be laid out in another
            way where the parameter's shape is static.
        mapped: whether samples get an axis of their own before those of the parameter.

    Raises:
        FewbitsError: ``bad-input`` for samples of another size.
    """
    if isinstance(samples, torch.Tensor):
        tensor = samples.to(torch_dtype(parameter.ty.dtype))
    else:
        tensor = from_numpy(np.ascontiguousarray(samples, str(parameter.ty.dtype)))
    declared = extents_of(parameter)
    wanted = declared if mapped else declared[1:]
    if all(isinstance(extent, int) for extent in wanted):
        shape = tuple(int(extent) for extent in wanted)  # pyright: ignore[reportArgumentType]
        if tensor.numel() != len(tensor) * math.prod(shape):
            raise _mismatch(parameter, tuple(tensor.shape[1:]), wanted)
        return tensor.reshape(len(tensor), *shape)
    if mapped and (wanted[0] == 1 or is_symbol(wanted[0])) and tensor.dim() == len(wanted):
        tensor = tensor.unsqueeze(1)
    if tensor.dim() != len(wanted) + 1:
        raise _mismatch(parameter, tuple(tensor.shape[1:]), wanted)
    return tensor


def _mismatch(parameter: Any, shape: tuple[int, ...], declared: Sequence[Extent]) -> FewbitsError:
    wanted = ", ".join(str(e) if isinstance(e, int) else _spelled(e) for e in declared)
    comma = "," if len(declared) == 1 else ""
    return FewbitsError(
        "bad-input",
        f"a sample has shape {shape}, the model wants ({wanted}{comma})",
        where=parameter.name,
    )


def _spelled(extent: Any) -> str:
    return extent.name if is_symbol(extent) else str(extent)
