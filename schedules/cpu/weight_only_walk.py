"""The order in which kernels read few-bit weights: chunks of codes, groups of one scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from tvm.tirx.script import builder as T

from .intrinsics_emit import index
from .weight_only_decode import Decoder
from .weight_only_scales import GroupScales


@dataclasses.dataclass(frozen=True)
class WeightStream:
    """A kernel's weights: walks over them, code by code.

    Attributes:
        lanes: outputs in a panel.
        length: stored values of a row.
        group: stored values that share a scale; at least `length`: all.
        decoder: the format.
        scales: the groups' scales and zero points.
        words, table, arguments: the kernel's buffers.
    """

    lanes: int
    length: int
    group: int
    decoder: Decoder
    scales: GroupScales
    words: Any
    table: Any
    arguments: dict[str, Any]

    def walk(
        self, panels: list[Any], start: Any, group: Any, count: int,
        use: Callable[[int, Any, int, Any, Any], None], close: Callable[[list[Any]], None],
    ) -> None:  # fmt: skip
        """Go over `count` values of the sum from a chunk's start on.

        Args:
            panels: which, all at the same pace.
            start: the first value's place; a multiple of the decoder's chunk.
            group: the first value's group.
            count: how many.
            use: called as ``use(panel number, place, code number, value, group)``.
            close: called with the panels' groups at each group's end.
        """
        size, chunk = min(self.group, count), self.decoder.chunk
        if size % chunk == 0 or size >= count:
            full, rest = divmod(count, size)
            per_group = size // chunk

            def one(number: Any, length: int) -> None:
                opened = self._open(panels, group + number)
                first = start + number * (per_group * chunk)
                whole, tail = divmod(length, chunk)
                if whole:
                    with T.serial(index(0), index(whole)) as i:
                        self._chunk(panels, first + i * chunk, chunk, opened, use)
                if tail:
                    self._chunk(panels, first + whole * chunk, tail, opened, use)
                close(opened)

            if full == 1:
                one(index(0), size)
            elif full:
                with T.serial(index(0), index(full)) as number:
                    one(number, size)
            if rest:
                one(index(full), rest)
            return
        # Groups end inside chunks: both are unrolled up to where they end together.
        unit = math.lcm(size, chunk)

        def unrolled(number: Any, length: int) -> None:
            opened: list[Any] = []
            for offset in range(0, length, chunk):
                part = min(chunk, length - offset)
                loaded = self._load(panels, start + number * unit + offset, part)
                for code in range(part):
                    place = offset + code
                    if place % size == 0:
                        opened = self._open(panels, group + number * (unit // size) + place // size)
                    self._use(loaded, code, start + number * unit + offset, opened, use)
                    if (place + 1) % size == 0 or place + 1 == length:
                        close(opened)

        full, rest = divmod(count, unit)
        if full:
            with T.serial(index(0), index(full)) as number:
                unrolled(number, unit)
        if rest:
            unrolled(index(full), rest)

    def _open(self, panels: list[Any], group: Any) -> list[Any]:
        return [self.scales.open(self.arguments, panel, group, self.lanes) for panel in panels]

    def _load(self, panels: list[Any], start: Any, count: int) -> list[Any]:
        decoder = self.decoder
        word = T.Bind(start // decoder.chunk * decoder.words(decoder.chunk))
        return [decoder.load(self.words, panel, word, count, self.lanes) for panel in panels]

    def _chunk(
        self, panels: list[Any], start: Any, count: int, opened: list[Any], use: Any
    ) -> None:
        loaded = self._load(panels, start, count)
        for code in range(count):
            self._use(loaded, code, start, opened, use)

    def _use(self, loaded: list[Any], code: int, start: Any, opened: list[Any], use: Any) -> None:
        decoder, lanes = self.decoder, self.lanes
        for number, (words, group) in enumerate(zip(loaded, opened, strict=True)):
            raw = decoder.raw(words, code, lanes)
            value = group.value(decoder, raw, self.table, lanes)
            use(number, start + code, code, value, group)
