"""How one activation is rounded, in the words of recipes, checked before any work is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pydantic

from ...errors import FewbitsError, nearest
from ...formats.affine import AffineFormat
from ...formats.base import NumberFormat
from ...formats.integer import Integer
from ...formats.parse import parse_format
from ..observers import Observer, make_observer

Strategy = Literal["token", "tensor"]
#: Observers that weigh rounding errors know uniform grids only.
_ANY_FORMAT = ("minmax", "moving", "percentile")


@dataclasses.dataclass(frozen=True)
class ActivationOptions:
    """How a layer's input is rounded; `QuantizeActivations` says what the fields mean.

    Raises:
        FewbitsError: ``unknown-format``, ``unknown-observer``, ``unknown-option`` and
            ``unsigned-format`` for what does not exist or does not go together.
    """

    format: str = "int8-narrow"
    strategy: Strategy = "token"
    dynamic: bool = True
    observer: str = "minmax"
    percentile: float = 99.99
    nonnegative: str | None = None

    def __post_init__(self) -> None:
        number_format = self.number_format
        if not number_format.signed and self.nonnegative != self.format:
            raise FewbitsError(
                "unsigned-format",
                f"{number_format} has no negative levels, and activations have no zero point here",
                hint="take a signed format",
            )
        if not self.dynamic and self.strategy == "token":
            raise FewbitsError(
                "unknown-option",
                "a scale per token is found at run time, not on calibration data",
                hint="dynamic: true, or strategy: tensor",
            )
        if self.nonnegative is not None:
            parse_format(self.nonnegative)
        self.make_observer()
        if not isinstance(number_format, Integer) and self.observer not in _ANY_FORMAT:
            raise FewbitsError(
                "unknown-option",
                f"the observer {self.observer} is for integers, not for {number_format}",
                hint=f"one of {', '.join(_ANY_FORMAT)}",
            )

    @property
    def number_format(self) -> NumberFormat:
        """The format."""
        return parse_format(self.format)

    def make_observer(self) -> Observer:
        """A fresh observer of values that get a constant scale."""
        return make_observer(self.observer, self.percentile)

    def static_scale(self, observer: Observer) -> np.float32:
        """The symmetric scale for what an observer has seen; 1 where everything is 0."""
        number_format = self.number_format
        bits, narrow = 8, True  # of the grid that only observers for integers look at
        if isinstance(number_format, Integer):
            bits, narrow = number_format.bits, number_format.narrow
            if not number_format.signed:  # the upper half of a grid of one bit more
                bits, narrow = bits + 1, True
        low, high = observer.range(AffineFormat(bits, symmetric=True, narrow=narrow))
        scale = np.float32(max(-low, high, 0.0) / number_format.reach)
        return scale if scale > np.finfo(np.float32).tiny else np.float32(1)

    def for_nonnegative(self) -> ActivationOptions:
        """The options of a value that is never negative."""
        if self.nonnegative is None:
            return self
        return dataclasses.replace(self, format=self.nonnegative)

    def changed(self, changes: Mapping[str, Any], where: str) -> ActivationOptions:
        """These options with some of them changed.

        Raises:
            FewbitsError: ``unknown-option`` for a name or value that makes no sense.
        """
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for key in changes:
            if key not in known:
                hint = nearest(str(key), known)
                raise FewbitsError(
                    "unknown-option", f"overrides have no {key!r}", where=where, hint=hint
                )
        try:
            return pydantic.TypeAdapter(ActivationOptions).validate_python({**known, **changes})
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise FewbitsError(
                "unknown-option", f"overrides, {place}: {first['msg']}", where=where
            ) from error
