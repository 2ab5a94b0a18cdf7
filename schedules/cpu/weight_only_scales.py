"""Scales, zero points, binary planes and offsets of the groups of a panel, as vectors."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import broadcast, vector
from .intrinsics_emit import ramp
from .weight_only_decode import Decoder, stream_code, widen
from .weight_only_layout import words_of

Storage = Literal["none", "float32", "float16", "bfloat16", "e8m0", "double"]
_DTYPES = {"bfloat16": "uint16", "e8m0": "uint8", "double": "uint8"}
#: Scales in a block of doubly quantized ones.
_DOUBLE_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class GroupScales:
    """What the groups of a weight have besides codes, and as which arguments kernels get it.

    Attributes:
        storage: of scales ``[panels, groups * planes, lanes]``; ``none``: there are none.
            ``double``: uint8 codes, and a table [256], block scales and the mean besides.
        groups: along the sum.
        shared: one scale (and zero point) for the whole tensor, ``[1]``.
        planes: scales per group, more than one for binary coding.
        zero_bits: bits of zero points, packed in streams along the groups; 0: there are none.
        zero_signed: whether they are two's complement.
        offset: whether there are float32 offsets ``[panels, groups, lanes]``.
        blocks: of doubly quantized scales.
    """

    storage: Storage
    groups: int = 1
    shared: bool = False
    planes: int = 1
    zero_bits: int = 0
    zero_signed: bool = False
    offset: bool = False
    blocks: int = 0

    @property
    def dtype(self) -> str:
        """Type of the stored scales."""
        return _DTYPES.get(self.storage, self.storage)

    def declare(self, panels: int, lanes: int) -> dict[str, Any]:
        """The arguments, by name, in order."""
        shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        if self.storage != "none":
            shape = (1,) if self.shared else (panels, self.groups * self.planes, lanes)
            shapes["scales"] = (shape, self.dtype)
        if self.storage == "double":
            shapes["tree"] = ((256,), "float32")
            shapes["block_scales"] = ((self.blocks,), "float32")
            shapes["mean"] = ((1,), "float32")
        if self.zero_bits:
            words = words_of(self.groups, self.zero_bits)
            shapes["zeros"] = ((1,) if self.shared else (panels, words, lanes), "int32")
        if self.offset:
            shapes["offsets"] = ((panels, self.groups, lanes), "float32")
        return {n: T.arg(n, T.buffer(shape, dtype)) for n, (shape, dtype) in shapes.items()}

    def open(self, arguments: dict[str, Any], panel: Any, group: Any, lanes: int) -> Group:
        """Load what one group has; bound to names, so loaded once."""
        scales = [
            T.Bind(self._scale(arguments, panel, group * self.planes + i, lanes))
            for i in range(self.planes if self.storage != "none" else 0)
        ]
        zero = (
            T.Bind(self._zero(arguments["zeros"], panel, group, lanes)) if self.zero_bits else None
        )
        offset = None
        if self.offset:
            offset = T.Bind(arguments["offsets"][panel, group, ramp(0, lanes)])
        return Group(scales, zero, offset, self.planes > 1 or self.offset)

    def _scale(self, arguments: dict[str, Any], panel: Any, place: Any, lanes: int) -> Any:
        stored = arguments["scales"]
        if self.storage == "double":
            return self._double(arguments, panel, place, lanes)
        if self.shared:
            return widen(broadcast(stored[0], lanes), self.storage, lanes)
        return widen(stored[panel, place, ramp(0, lanes)], self.storage, lanes)

    def _double(self, arguments: dict[str, Any], panel: Any, place: Any, lanes: int) -> Any:
        """Blocks run along the flattened scales, so a vector's lanes lie in many blocks."""
        mean = broadcast(arguments["mean"][0], lanes)
        stored = arguments["scales"]
        if self.shared:
            code = tirx.Cast("int32", stored[0])
            one = arguments["tree"][code] * arguments["block_scales"][0]
            return broadcast(one, lanes) + mean
        codes = tirx.Cast(vector("int32", lanes), stored[panel, place, ramp(0, lanes)])
        row = self.groups * self.planes
        first = tirx.Cast("int32", panel) * (lanes * row) + tirx.Cast("int32", place)
        places = tirx.Ramp(first, tirx.const(row, "int32"), lanes) // _all(_DOUBLE_BLOCK, lanes)
        # Outputs that only fill the last panel would read behind the end.
        blocks = tirx.min(places, _all(self.blocks - 1, lanes))
        return arguments["tree"][codes] * arguments["block_scales"][blocks] + mean

    def _zero(self, stored: Any, panel: Any, group: Any, lanes: int) -> Any:
        """A zero point as float32."""
        bits = self.zero_bits
        if self.shared:
            raw = broadcast(stored[0], lanes)
        else:
            words = words_of(self.groups, bits)
            raw = stream_code(stored, panel, group, bits, words, lanes)
        top = tirx.shift_left(raw, _all(32 - bits, lanes))
        if self.zero_signed:
            whole = tirx.shift_right(top, _all(32 - bits, lanes))
        else:
            whole = tirx.bitwise_and(raw, _all((1 << bits) - 1, lanes))
        return tirx.Cast(vector("float32", lanes), whole)


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of a panel, opened.

    Attributes:
        scales: one vector, or one per plane.
        zero: to be subtracted before scaling.
        offset: to be added after scaling.
        complete: values come scaled already, so sums need no scale.
    """

    scales: list[Any]
    zero: Any
    offset: Any
    complete: bool

    def value(self, decoder: Decoder, raw: Any, table: Any, lanes: int) -> Any:
        """The weights of a code, without their scale unless `complete`."""
        if self.complete:
            return self._planes(decoder, raw, lanes)
        value = decoder.value(raw, table, lanes)
        return value if self.zero is None else value - self.zero

    @property
    def scale(self) -> Any:
        """What sums of values are multiplied by; None where they are right already."""
        return None if self.complete or not self.scales else self.scales[0]

    def _planes(self, decoder: Decoder, raw: Any, lanes: int) -> Any:
        """Each plane's scale with the sign that its bit says, summed."""
        total = self.offset
        for plane, scale in enumerate(self.scales):
            sign = tirx.bitwise_and(decoder.minus(raw, plane, lanes), _all(-(1 << 31), lanes))
            bits = tirx.reinterpret(vector("int32", lanes), scale) ^ sign
            term = tirx.reinterpret(vector("float32", lanes), bits)
            total = term if total is None else total + term
        return total


def _all(value: int, lanes: int) -> Any:
    return broadcast(tirx.const(value, "int32"), lanes)
