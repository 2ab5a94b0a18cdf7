"""The geometry of a convolution: which inputs an output sees, and in which order they are read."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, cast

import numpy as np
from tvm import relax


class Attributes(Protocol):
    """What an operator was given besides its arguments, by name."""

    def __getitem__(self, name: str, /) -> Any: ...


def attributes(call: relax.Call) -> Attributes:
    """The attributes of a call of one of our operators, which always has some."""
    return cast(Attributes, call.attrs)


def _numbers(attribute: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in attribute)


@dataclasses.dataclass(frozen=True)
class Window:
    """A convolution's shape: NHWC input and output, OHWI weights.

    `padding` is (top, left, bottom, right); `channels` and `outputs` are those of all groups.
    """

    batch: int
    in_h: int
    in_w: int
    channels: int
    out_h: int
    out_w: int
    outputs: int
    kernel_h: int
    kernel_w: int
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        kernel: tuple[int, int],
        attrs: Attributes,
    ) -> Window:
        """The window of a ``fewbits.conv2d`` with these shapes and attributes."""
        batch, in_h, in_w, channels = input_shape
        _, out_h, out_w, outputs = output_shape
        stride_y, stride_x = _numbers(attrs["strides"])
        top, left, bottom, right = _numbers(attrs["padding"])
        dilation_y, dilation_x = _numbers(attrs["dilation"])
        return cls(
            batch, in_h, in_w, channels, out_h, out_w, outputs, *kernel,
            (stride_y, stride_x), (top, left, bottom, right), (dilation_y, dilation_x),
            int(attrs["groups"]),
        )  # fmt: skip

    @property
    def depth(self) -> int:
        """Products per output (K)."""
        return self.kernel_h * self.kernel_w * self.run_channels

    @property
    def run_channels(self) -> int:
        """Input channels that one output sees."""
        return self.channels // self.groups

    @property
    def run(self) -> int:
        """Elements under one row of the kernel."""
        return self.kernel_w * self.run_channels

    @property
    def pixels(self) -> int:
        """Output pixels of one image."""
        return self.out_h * self.out_w

    @property
    def runs_together(self) -> bool:
        """Whether the elements under one row of the kernel lie together in the image."""
        return self.kernel_w == 1 or (self.dilation[1] == 1 and self.groups == 1)

    @property
    def stays_inside(self) -> bool:
        """Whether no output sees padding."""
        return all(rows.all() for rows in (self._inside(0), self._inside(1)))

    @property
    def is_dense(self) -> bool:
        """Whether each image is one row of a fully connected layer."""
        whole = (self.kernel_h, self.kernel_w) == (self.in_h, self.in_w)
        plain = self.dilation == (1, 1) or (self.kernel_h, self.kernel_w) == (1, 1)
        return whole and plain and not any(self.padding) and self.groups == 1 and self.pixels == 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates, padding not counted."""
        taps = int(self._inside(0).sum()) * int(self._inside(1).sum())
        return self.batch * taps * self.run_channels * self.outputs

    def _positions(self, axis: int) -> np.ndarray:
        """Row (axis 0) or column (axis 1) of every tap: [outputs along the axis, taps]."""
        count = (self.out_h, self.out_w)[axis]
        taps = (self.kernel_h, self.kernel_w)[axis]
        first = np.arange(count)[:, None] * self.strides[axis] - self.padding[axis]
        return first + np.arange(taps)[None, :] * self.dilation[axis]

    def _inside(self, axis: int) -> np.ndarray:
        positions = self._positions(axis)
        return (positions >= 0) & (positions < (self.in_h, self.in_w)[axis])

    def first_reads(self) -> np.ndarray:
        """The lowest input byte that each output pixel reads: [batch · pixels] int64.

        Pixels that see padding only read nothing; theirs is the end of the input.
        """
        never = np.iinfo(np.int64).max
        lowest = []
        for axis in (0, 1):
            inside = np.where(self._inside(axis), self._positions(axis), never)
            lowest.append(inside.min(axis=1))
        rows, columns = np.meshgrid(*lowest, indexing="ij")
        image = self.in_h * self.in_w * self.channels
        outside = (rows == never) | (columns == never)
        rows, columns = np.where(outside, 0, rows), np.where(outside, 0, columns)
        reads = (rows * self.in_w + columns) * self.channels
        per_image = np.where(outside, self.batch * image, reads).ravel()
        starts = np.arange(self.batch)[:, None] * image
        return np.minimum(starts + per_image, self.batch * image).ravel()

    def overlap(self, block: int) -> int | None:
        """How far before the input the output must start when both share memory.

        For kernels that go through each image in blocks of `block` pixels and then pixel by pixel,
        each block reading all it needs before it writes. None: they must not share memory.
        """
        if self.groups > 1:  # The groups go through the image one after the other.
            return None
        whole = self.pixels // block * block
        ends = [*range(block, whole + 1, block), *range(whole + 1, self.pixels + 1)]
        block_ends = np.concatenate([np.array(ends) + n * self.pixels for n in range(self.batch)])
        reads = self.first_reads()
        still_needed = np.minimum.accumulate(reads[::-1])[::-1]
        later = block_ends[:-1]
        distance = int(np.max(later * self.outputs - still_needed[later], initial=0))
        return distance if distance < self.batch * self.pixels * self.outputs else None
