"""Which values share a scale (spec 0.2): the whole tensor, a channel, a group, a block, a token.

Every granularity lays a tensor out as rows, one per scale, and back; all that computes scales or
codes works on those rows and never knows the granularity. A last group or block that is too short
is padded with zeros in the rows and is short again afterwards.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import re
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError, nearest

T = TypeVar("T", bound=np.generic)
Shape = tuple[int, ...]


class Granularity(abc.ABC):
    """How a tensor divides into parts with one scale each. Subclasses are frozen dataclasses."""

    name: str

    @abc.abstractmethod
    def scale_shape(self, shape: Shape) -> Shape:
        """Shape of the scales of a tensor of this shape.

        Raises:
            FewbitsError: ``bad-granularity`` where the tensor has no such axis.
        """

    @abc.abstractmethod
    def rows(self, x: npt.NDArray[T]) -> npt.NDArray[T]:
        """`x` as ``[number of scales, values per scale]``, in the order of flattened scales."""

    @abc.abstractmethod
    def from_rows(self, rows: npt.NDArray[T], shape: Shape) -> npt.NDArray[T]:
        """The tensor of this shape whose `rows` these are."""

    def __str__(self) -> str:
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        options = ",".join(f"{k}={v}" for k, v in fields.items())
        return f"{self.name}{{{options}}}" if options else self.name


@dataclasses.dataclass(frozen=True)
class PerTensor(Granularity):
    """One scale."""

    name = "tensor"

    def scale_shape(self, shape: Shape) -> Shape:
        """``()``."""
        return ()

    def rows(self, x: npt.NDArray[T]) -> npt.NDArray[T]:
        """One row."""
        return x.reshape(1, -1)

    def from_rows(self, rows: npt.NDArray[T], shape: Shape) -> npt.NDArray[T]:
        """That row, reshaped."""
        return rows.reshape(shape)


@dataclasses.dataclass(frozen=True)
class PerChannel(Granularity):
    """A scale for each index of `axis`: the output channels of a weight."""

    axis: int = 0
    name = "channel"

    def scale_shape(self, shape: Shape) -> Shape:
        """``(channels,)``."""
        return (shape[_axis(self.axis, shape)],)

    def rows(self, x: npt.NDArray[T]) -> npt.NDArray[T]:
        """A row per channel."""
        moved = np.moveaxis(x, _axis(self.axis, x.shape), 0)
        return moved.reshape(moved.shape[0], math.prod(moved.shape[1:]))

    def from_rows(self, rows: npt.NDArray[T], shape: Shape) -> npt.NDArray[T]:
        """Channels back on their axis."""
        axis = _axis(self.axis, shape)
        rest = shape[:axis] + shape[axis + 1 :]
        return np.moveaxis(rows.reshape(shape[axis], *rest), 0, axis)


@dataclasses.dataclass(frozen=True)
class PerGroup(Granularity):
    """A scale for every `size` neighbours along `axis`, as in ONNX's blocked quantization."""

    size: int = 128
    axis: int = -1
    name = "group"

    def __post_init__(self) -> None:
        _check_size(self.size, "group")

    def scale_shape(self, shape: Shape) -> Shape:
        """The tensor's shape with the number of groups in place of `axis`."""
        axis = _axis(self.axis, shape)
        groups = -(-shape[axis] // self.size)
        return (*shape[:axis], groups, *shape[axis + 1 :])

    def rows(self, x: npt.NDArray[T]) -> npt.NDArray[T]:
        """A row per group; short last groups end in zeros."""
        axis = _axis(self.axis, x.shape)
        groups = self.scale_shape(x.shape)[axis]
        # [..., groups, size] with the group's place where the axis was, its members last.
        moved = np.moveaxis(x, axis, -1)
        padding = groups * self.size - x.shape[axis]
        if padding:
            moved = np.pad(moved, [(0, 0)] * (x.ndim - 1) + [(0, padding)])
        split = moved.reshape(*moved.shape[:-1], groups, self.size)
        return np.moveaxis(split, -2, axis).reshape(-1, self.size)

    def from_rows(self, rows: npt.NDArray[T], shape: Shape) -> npt.NDArray[T]:
        """Groups back in line, padding dropped."""
        axis = _axis(self.axis, shape)
        split = np.moveaxis(rows.reshape(*self.scale_shape(shape), self.size), axis, -2)
        line = split.reshape(*split.shape[:-2], split.shape[-2] * self.size)
        return np.moveaxis(line[..., : shape[axis]], -1, axis)


@dataclasses.dataclass(frozen=True)
class PerBlock(Granularity):
    """A scale for every `size` values of the flattened tensor."""

    size: int = 64
    name = "block"

    def __post_init__(self) -> None:
        _check_size(self.size, "block")

    def scale_shape(self, shape: Shape) -> Shape:
        """``(blocks,)``."""
        return (-(-math.prod(shape) // self.size),)

    def rows(self, x: npt.NDArray[T]) -> npt.NDArray[T]:
        """A row per block; a short last one ends in zeros."""
        (blocks,) = self.scale_shape(x.shape)
        flat = x.reshape(-1)
        return np.pad(flat, (0, blocks * self.size - flat.size)).reshape(blocks, self.size)

    def from_rows(self, rows: npt.NDArray[T], shape: Shape) -> npt.NDArray[T]:
        """Flat, padding dropped, reshaped."""
        return rows.reshape(-1)[: math.prod(shape)].reshape(shape)


@dataclasses.dataclass(frozen=True)
class PerToken(Granularity):
    """A scale for each vector along the last axis; for activations, found at run time."""

    name = "token"

    def scale_shape(self, shape: Shape) -> Shape:
        """The tensor's shape without its last axis."""
        _axis(-1, shape)
        return shape[:-1]

    def rows(self, x: npt.NDArray[T]) -> npt.NDArray[T]:
        """A row per token."""
        return x.reshape(math.prod(self.scale_shape(x.shape)), x.shape[-1])

    def from_rows(self, rows: npt.NDArray[T], shape: Shape) -> npt.NDArray[T]:
        """Reshaped."""
        return rows.reshape(shape)


_KINDS: dict[str, type[Granularity]] = {
    kind.name: kind for kind in (PerTensor, PerChannel, PerGroup, PerBlock, PerToken)
}
_TEXT = re.compile(r"(\w+)(?:\{(\w+=-?\d{1,9}(?:,\w+=-?\d{1,9})*)\})?")


def parse_granularity(text: str) -> Granularity:
    """The granularity whose text this is: ``tensor``, ``channel{axis=1}``, ``group{size=64}``.

    Raises:
        FewbitsError: ``bad-granularity``.
    """
    match = _TEXT.fullmatch(text)
    if match is None or match[1] not in _KINDS:
        raise FewbitsError(
            "bad-granularity", f"no granularity is written {text[:40]!r}",
            hint=nearest(text[:40].split("{")[0], _KINDS),
        )  # fmt: skip
    options: dict[str, Any] = {}
    for pair in filter(None, (match[2] or "").split(",")):
        key, _, value = pair.partition("=")
        options[key] = int(value)
    kind = _KINDS[match[1]]
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise FewbitsError(
                "bad-granularity", f"{match[1]} has no option {key!r}",
                hint=nearest(key, known) if known else None,
            )  # fmt: skip
    return kind(**options)


def _check_size(size: int, what: str) -> None:
    if not 1 <= size <= 1 << 30:
        raise FewbitsError("bad-granularity", f"a {what} holds at least one value, not {size}")


def _axis(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < len(shape):
        raise FewbitsError("bad-granularity", f"a tensor of shape {shape} has no axis {axis}")
    return axis % len(shape)
