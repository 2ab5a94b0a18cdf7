"""The stored form of a weight of 2 to 8 bits, shared by all kernels of its product.

Codes are laid out for tensor cores (`planes`). What multiplies them comes in two parts: a float32
factor per output, applied to finished sums, which takes the format's own range and whatever is
common to a whole output, and, where groups along the inputs have scales of their own, those
relative to the largest of their output. So decoded values and relative scales always fit float16,
whatever the scales are, and sums are multiplied by a factor at most twice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ....errors import FewbitsError
from ....formats.compressed import CompressedTensor
from ....formats.floating import Float, Specials
from ....formats.integer import Integer
from ....formats.parse import parse_format
from ..weight_format import Array, WeightFormat
from .grouping import expanded_of, group_of, refusal, relative_of, scales_of
from .planes import TILE, Plane, pack_plane, padded, planes_of, unpack_plane

__all__ = ["FewBit", "Kind", "ScaleType", "refusal"]

ScaleType = Literal["float16", "float32"]
#: How kernels turn a code into a number.
Kind = Literal["integer", "float", "table"]


@dataclasses.dataclass(frozen=True)
class FewBit(WeightFormat):
    """Codes of a number format, with scales per output or per group of inputs.

    `pack` takes a `CompressedTensor` [outputs, inputs] that `of` gives this layout for.

    Attributes:
        number_format: its name.
        group: inputs that share a scale: 16, 32 or a multiple of 64; None where an output has one.
        scale: dtype of the groups' scales.
        zero_points: groups (outputs, where there are no groups) have one; integers only.
    """

    number_format: str
    group: int | None = None
    scale: ScaleType = "float16"
    zero_points: bool = False

    @staticmethod
    def of(tensor: CompressedTensor) -> FewBit:
        """The layout of a tensor.

        Raises:
            FewbitsError: ``no-layout`` where there is none, with the reason.
        """
        reason = refusal(tensor)
        if reason is not None:
            raise FewbitsError("no-layout", reason, hint="the tensor can be decoded to float16")
        group = group_of(tensor)
        scale: ScaleType = "float16"
        if group is not None:
            relative, _ = relative_of(scales_of(tensor, group))
            exact = relative.astype(np.float16).astype(np.float64) == relative
            scale = "float16" if exact.all() else "float32"
        zero_points = tensor.zero_points is not None
        return FewBit(tensor.number_format.name, group, scale, zero_points)

    @property
    def key(self) -> str:
        """``few-bit-int4-g128-float16``."""
        parts = ["few-bit", self.number_format]
        if self.group is not None:
            parts += [f"g{self.group}", self.scale]
        return "-".join(parts + (["zeros"] if self.zero_points else []))

    @property
    def bits(self) -> int:
        """Of a code."""
        return parse_format(self.number_format).bits

    @property
    def kind(self) -> Kind:
        """How codes become numbers: floats that float16 contains need no table."""
        number_format = parse_format(self.number_format)
        if isinstance(number_format, Integer):
            return "integer"
        if isinstance(number_format, Float):
            top_is_number = number_format.specials != "ieee"
            if number_format.exponent_bits < 5 or (
                number_format.exponent_bits == 5 and not top_is_number
            ):
                return "float"
        return "table"

    @property
    def planes(self) -> tuple[Plane, ...]:
        """How the codes' bits are laid out."""
        return planes_of(self.bits, neighbours=self.kind == "table" and self.bits == 4)

    @property
    def middle(self) -> int:
        """What is subtracted from stored codes of integers that have no zero points.

        Signed ones are stored with their sign bit turned over, so that stored codes are positive.
        """
        number_format = parse_format(self.number_format)
        return 1 << (self.bits - 1) if number_format.signed else 0

    def levels(self) -> tuple[np.ndarray, float]:
        """float64 by stored code, and the factor that was taken out: what kernels decode to.

        Integers are exact. Floats have float16's bias: 15. Tables are rounded to float16 with the
        largest magnitude between 2^14 and 2^15.
        """
        number_format = parse_format(self.number_format)
        values = number_format.values()
        if self.kind == "integer":
            return np.arange(1 << self.bits, dtype=np.float64) - self.middle, 1.0
        if isinstance(number_format, Float) and self.kind == "float":
            assert number_format.bias is not None
            top: Specials = "ieee" if number_format.exponent_bits == 5 else "finite"
            plain = dataclasses.replace(number_format, bias=15.0, specials=top, saturate=True)
            return plain.values(), 2.0 ** (15.0 - number_format.bias)
        values = np.where(np.isfinite(values), values, 0.0)
        factor = 2.0 ** (math.frexp(float(np.abs(values).max()))[1] - 15)
        return (values / factor).astype(np.float16).astype(np.float64), factor

    def arrays(self, outputs: int, inputs: int) -> tuple[Array, ...]:
        """Codes, factors, and what the format needs of scales, zero points and a table.

        Outputs are padded to 16 and inputs to 64. Scales and zero points lie by tile of outputs,
        group, and output, the first and the ninth of a tile first: [tiles, groups, 8, 2].
        """
        rows, columns = padded(outputs, inputs)
        words = rows * columns * self.bits // 32
        found = [Array("codes", (words,), "uint32"), Array("factors", (rows,), "float32")]
        groups = self.groups(inputs)
        if self.group is not None:
            found.append(Array("scales", (rows * groups,), self.scale))
        if self.zero_points:
            found.append(Array("zeros", (rows * groups,), "uint8"))
        if self.has_table:
            found.append(Array("table", (1 << self.bits,), "float16"))
        return tuple(found)

    @property
    def has_table(self) -> bool:
        """Whether levels are an array: beyond 16 of them they do not fit instructions."""
        return self.kind == "table" and self.bits > 4

    def groups(self, inputs: int) -> int:
        """Groups of an output, those of padding included."""
        return 1 if self.group is None else -(-padded(1, inputs)[1] // self.group)

    def pack(self, weight: Any) -> Sequence[np.ndarray]:
        """The arrays of a `CompressedTensor`.

        Raises:
            FewbitsError: ``no-layout`` where its layout is another one, ``not-a-number`` where a
                code means NaN or infinity, ``scale-overflow`` where a factor exceeds float32.
        """
        tensor: CompressedTensor = weight
        found = FewBit.of(tensor)
        if found != dataclasses.replace(self, scale=found.scale) or self.scale < found.scale:
            raise FewbitsError("no-layout", f"the tensor's layout is {found.key}, not {self.key}")
        outputs, inputs = tensor.shape
        rows, columns = padded(outputs, inputs)
        codes = tensor.codes()
        if not np.isfinite(parse_format(self.number_format).values()[codes]).all():
            raise FewbitsError("not-a-number", f"a {self.number_format} weight is not finite")
        codes = codes ^ np.uint8(self.middle if self.kind == "integer" else 0)
        codes = np.pad(codes, ((0, rows - outputs), (0, columns - inputs)))
        words = [pack_plane(plane, codes) for plane in self.planes]
        relative, factors = relative_of(scales_of(tensor, self.group))
        with np.errstate(over="ignore"):
            factors = np.pad(factors * self.levels()[1], (0, rows - outputs)).astype(np.float32)
        if not np.isfinite(factors).all():
            raise FewbitsError("scale-overflow", "scales times the format's range exceed float32")
        found_arrays = [np.concatenate(words), factors]
        if self.group is not None:
            found_arrays.append(self._by_tile(relative, inputs).astype(self.scale))
        if self.zero_points:
            assert tensor.zero_points is not None
            zeros = expanded_of(tensor, tensor.zero_points, self.group) ^ np.uint8(self.middle)
            found_arrays.append(self._by_tile(zeros, inputs).astype(np.uint8))
        if self.has_table:
            found_arrays.append(self.levels()[0].astype(np.float16))
        return found_arrays

    def decoded(self, arrays: Sequence[np.ndarray], outputs: int, inputs: int) -> np.ndarray:
        """float64 [outputs, inputs]: the tensor's own values, but for tables rounded to float16."""
        rows, columns = padded(outputs, inputs)
        by_name = {
            array.name: np.asarray(content).reshape(-1)
            for array, content in zip(self.arrays(outputs, inputs), arrays, strict=True)
        }
        values = self.levels()[0][self._codes(by_name["codes"], rows, columns)]
        if self.zero_points:
            zeros = self._by_input(by_name["zeros"].astype(np.float64), rows, columns)
            values = values + self.middle - zeros
        if self.group is not None:
            values = values * self._by_input(by_name["scales"].astype(np.float64), rows, columns)
        values = values * by_name["factors"].astype(np.float64)[:, None]
        return values[:outputs, :inputs]

    def _codes(self, words: np.ndarray, rows: int, columns: int) -> np.ndarray:
        codes, start = np.zeros((rows, columns), np.uint8), 0
        for plane in self.planes:
            size = rows * columns * plane.width // 32
            codes |= unpack_plane(plane, words[start : start + size], rows, columns)
            start += size
        return codes

    def _by_tile(self, values: np.ndarray, inputs: int) -> np.ndarray:
        """[outputs, groups] as kernels read it, flat, padded with zeros."""
        rows, groups = -(-values.shape[0] // TILE) * TILE, self.groups(inputs)
        full = np.pad(values, ((0, rows - values.shape[0]), (0, groups - values.shape[1])))
        return full.reshape(-1, 2, 8, groups).transpose(0, 3, 2, 1).reshape(-1)

    def _by_input(self, flat: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """The way back: a value for every input, [rows, columns]."""
        groups = self.groups(columns)
        values = flat.reshape(-1, groups, 8, 2).transpose(0, 3, 2, 1).reshape(rows, groups)
        return np.repeat(values, self.group or columns, axis=1)[:, :columns]
