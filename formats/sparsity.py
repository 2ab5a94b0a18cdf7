"""Which values of a tensor are kept, and what it costs to say so.

A sparsity turns a mask into stored arrays and back; the kept values follow each other in C order.
Sizes are those of the stored arrays, last padding bits not counted.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import re

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError, nearest
from .packing import pack, unpack

Mask = npt.NDArray[np.bool_]
Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]


class Sparsity(abc.ABC):
    """A rule for stored values. Subclasses are frozen dataclasses."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The text form, which `parse_sparsity` reads back."""

    @abc.abstractmethod
    def complete(self, mask: Mask) -> Mask:
        """The mask of stored values: at least `mask`, with zeros added where the rule needs them.

        Raises:
            FewbitsError: ``bad-sparsity`` where `mask` keeps more than the rule allows.
        """

    @abc.abstractmethod
    def describe(self, mask: Mask) -> Arrays:
        """Arrays that say which values a `complete` mask stores."""

    @abc.abstractmethod
    def restore(self, arrays: Arrays, shape: Shape) -> Mask:
        """The mask that `describe` described; refuses arrays that contradict `shape`."""

    @abc.abstractmethod
    def metadata_bits(self, arrays: Arrays, shape: Shape) -> int:
        """Exact bits of what `describe` returned."""

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Dense(Sparsity):
    """``dense``: every value."""

    @property
    def name(self) -> str:
        """``dense``."""
        return "dense"

    def complete(self, mask: Mask) -> Mask:
        """All true."""
        return np.ones_like(mask)

    def describe(self, mask: Mask) -> Arrays:
        """Nothing to say."""
        return {}

    def restore(self, arrays: Arrays, shape: Shape) -> Mask:
        """All true."""
        return np.ones(shape, bool)

    def metadata_bits(self, arrays: Arrays, shape: Shape) -> int:
        """0."""
        return 0


@dataclasses.dataclass(frozen=True)
class NofM(Sparsity):
    """``2:4``: `n` of every `m` neighbours along the last axis are stored, with their places.

    A place takes ``ceil(log2(m))`` bits, ascending within the group, packed low bits first: for 2:4
    the metadata that sparse tensor cores read, before their reordering.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m <= 256:
            raise FewbitsError("bad-sparsity", f"n:m needs 1 <= n < m <= 256, not {self.name}")

    @property
    def name(self) -> str:
        """``2:4``."""
        return f"{self.n}:{self.m}"

    @property
    def place_bits(self) -> int:
        """Bits of one place."""
        return (self.m - 1).bit_length()

    def _groups(self, shape: Shape) -> int:
        if not shape or shape[-1] % self.m:
            raise FewbitsError(
                "bad-sparsity",
                f"{self.name} needs a last axis that {self.m} divides, not shape {shape}",
            )
        return math.prod(shape) // self.m

    def complete(self, mask: Mask) -> Mask:
        """Exactly `n` per group: the kept ones, then the first of the others."""
        groups = mask.reshape(self._groups(mask.shape), self.m)
        if groups.size and int(groups.sum(axis=1).max()) > self.n:
            raise FewbitsError("bad-sparsity", f"a group of {self.m} keeps more than {self.n}")
        order = np.argsort(~groups, axis=1, kind="stable")[:, : self.n]
        full = np.zeros_like(groups)
        np.put_along_axis(full, order, True, axis=1)
        return full.reshape(mask.shape)

    def describe(self, mask: Mask) -> Arrays:
        """``places``: packed places of the stored values."""
        groups = mask.reshape(self._groups(mask.shape), self.m)
        return {"places": pack(np.nonzero(groups)[1], self.place_bits)}

    def restore(self, arrays: Arrays, shape: Shape) -> Mask:
        """The mask; places must ascend within their group."""
        count = self._groups(shape)
        places = unpack(arrays["places"], self.place_bits, count * self.n)
        places = places.reshape(count, self.n).astype(np.intp)
        if places.size and (places.max() >= self.m or (np.diff(places, axis=1) <= 0).any()):
            raise FewbitsError("bad-sparsity", f"the places of {self.name} values make no sense")
        groups = np.zeros((count, self.m), bool)
        np.put_along_axis(groups, places, True, axis=1)
        return groups.reshape(shape)

    def metadata_bits(self, arrays: Arrays, shape: Shape) -> int:
        """`n` places per group."""
        return self._groups(shape) * self.n * self.place_bits


@dataclasses.dataclass(frozen=True)
class Bitmap(Sparsity):
    """``bitmap``: any mask, one bit per value; smaller than `Rows` above 1/16 density or so."""

    @property
    def name(self) -> str:
        """``bitmap``."""
        return "bitmap"

    def complete(self, mask: Mask) -> Mask:
        """The mask itself."""
        return mask

    def describe(self, mask: Mask) -> Arrays:
        """``bitmap``: the first value in the lowest bit."""
        return {"bitmap": pack(mask, 1)}

    def restore(self, arrays: Arrays, shape: Shape) -> Mask:
        """The mask."""
        return unpack(arrays["bitmap"], 1, math.prod(shape)).astype(bool).reshape(shape)

    def metadata_bits(self, arrays: Arrays, shape: Shape) -> int:
        """One per value."""
        return math.prod(shape)


@dataclasses.dataclass(frozen=True)
class Rows(Sparsity):
    """``rows``: any mask as compressed sparse rows over the last axis.

    ``columns`` are uint16 (uint32 where rows are longer than 65,536), ``ends`` uint32 per row.
    """

    @property
    def name(self) -> str:
        """``rows``."""
        return "rows"

    def complete(self, mask: Mask) -> Mask:
        """The mask itself."""
        return mask

    def describe(self, mask: Mask) -> Arrays:
        """``columns`` of the kept values and the running count at each row's end."""
        rows, length = _rows_of(mask.shape)
        flat = mask.reshape(rows, length)
        dtype = np.uint16 if length <= 1 << 16 else np.uint32
        return {
            "columns": np.nonzero(flat)[1].astype(dtype),
            "ends": np.cumsum(flat.sum(axis=1)).astype(np.uint32),
        }

    def restore(self, arrays: Arrays, shape: Shape) -> Mask:
        """The mask; ends must not descend and columns must ascend within their row."""
        rows, length = _rows_of(shape)
        columns, ends = arrays["columns"].astype(np.int64), arrays["ends"].astype(np.int64)
        counts = np.diff(ends, prepend=0)
        kept = int(ends[-1]) if ends.size else 0
        stored = 32 + columns.nbytes + ends.nbytes
        sane = (
            columns.ndim == ends.ndim == 1
            and ends.size == rows
            and kept == columns.size
            and (counts >= 0).all()
            # Nearly empty rows of absurd length are a small file asking for much memory.
            and rows * length <= max(1 << 24, 4096 * stored)
        )
        if sane and columns.size:
            places = np.repeat(np.arange(rows), counts) * length + columns
            sane = bool(columns.max() < length and (np.diff(places) > 0).all())
        if not sane:
            raise FewbitsError("bad-sparsity", f"the row indices do not fit a shape {shape}")
        mask = np.zeros((rows, length), bool)
        mask[np.repeat(np.arange(rows), counts), columns] = True
        return mask.reshape(shape)

    def metadata_bits(self, arrays: Arrays, shape: Shape) -> int:
        """Of columns and ends as stored."""
        return 8 * (arrays["columns"].nbytes + arrays["ends"].nbytes)


def _rows_of(shape: Shape) -> tuple[int, int]:
    return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def parse_sparsity(text: str) -> Sparsity:
    """``dense``, ``bitmap``, ``rows``, ``n:m``, ``8x1``, or, to prune, ``8x1@0.9``.

    Raises:
        FewbitsError: ``bad-sparsity``.
    """
    plain: dict[str, Sparsity] = {str(s): s for s in (Dense(), Bitmap(), Rows())}
    if text in plain:
        return plain[text]
    if match := re.fullmatch(r"(\d{1,3}):(\d{1,3})", text):
        return NofM(int(match[1]), int(match[2]))
    from .vectors import Vectors  # which is a `Sparsity` itself

    if match := re.fullmatch(r"(\d{1,3})x1(?:@(0?\.\d{1,6}|0))?", text):
        return Vectors(int(match[1]), None if match[2] is None else float(match[2]))
    raise FewbitsError(
        "bad-sparsity", f"no sparsity is written {text[:40]!r}",
        hint=nearest(text[:40], [*plain, "2:4", "8x1"]),
    )  # fmt: skip
