"""Activations as codes, with the scales of their rows: what int8 and FP8 products read.

Plain loops without threads: `general` schedules them, together with the layer norm or activation
before them. The codes are those of ``fewbits.fake_quantize`` to the bit (spec 2, 7): the scale is
the largest magnitude of a row over the format's reach, the code the rounded quotient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tvm import te, tirx
from tvm.ir import prim

_SMALLEST = 2.0**-126


@dataclasses.dataclass(frozen=True)
class QuantizeRows:
    """x [..., K] float -> codes [..., K] and, where scales are found at run time, scales [...].

    One scale of all rows is [1]. Sizes that are known are written as such: functions are joined
    with their neighbours where their types are equal.

    Attributes:
        leading: the sizes before the last, None for those that are known at run time only.
        columns: K.
        source: dtype of x.
        codes: dtype of the codes: ``int8``, ``float8_e4m3fn``, ``float8_e5m2``; or ``float16`` for
            FP8 levels on GPUs without FP8 products.
        levels: of FP8 the dtype that the codes are rounded to; None for integers.
        minimum, maximum: of the codes.
        reach: the largest magnitude divided by this is the scale.
        scales: ``token`` or ``tensor``: found at run time, per row or over all rows; ``static``: a
            parameter [1] after x.
        factors: whether x is first multiplied by a vector [K], the next parameter.
    """

    leading: tuple[int | None, ...]
    columns: int
    source: str
    codes: str
    levels: str | None
    minimum: float
    maximum: float
    reach: float
    scales: Literal["token", "tensor", "static"]
    factors: bool

    @property
    def name(self) -> str:
        """A C identifier."""
        return f"quantize_{self.scales}_{self.levels or self.codes}"

    def build(self) -> Any:
        """The PrimFunc: x, [factors], [scale], codes, [scales]."""
        rows = [
            tirx.Var(f"m{place}", "int64") if size is None else _size(size)
            for place, size in enumerate(self.leading)
        ]
        columns, one = _size(self.columns), _size(1)
        x = te.placeholder((*rows, columns), self.source, "x")
        inputs = [x]
        factors = None
        if self.factors:
            factors = te.placeholder((columns,), "float32", "factors")
            inputs.append(factors)

        def at(place: Sequence[Any]) -> Any:
            value = x[tuple(place)]
            value = value if self.source == "float32" else tirx.Cast("float32", value)
            return value if factors is None else value * factors[place[-1]]

        outputs = []
        if self.scales == "static":
            scale = te.placeholder((one,), "float32", "scale")
            inputs.append(scale)
        else:
            scale = self._scale(rows, at)
            outputs.append(scale)
        per_row = self.scales == "token"
        codes = te.compute(
            (*rows, columns),
            lambda *place: self._code(at(place) / scale[place[:-1] if per_row else (0,)]),
            name="codes",
        )
        function = te.create_prim_func([*inputs, codes, *outputs])
        return function.with_attr("global_symbol", self.name)

    def _scale(self, rows: Sequence[Any], at: Callable[[Sequence[Any]], Any]) -> Any:
        k = te.reduce_axis((_size(0), _size(self.columns)), "k")
        largest = te.compute(
            rows, lambda *m: te.max(tirx.abs(at((*m, k))), axis=k), name="magnitude"
        )
        if self.scales == "tensor":
            of_rows = largest
            axes = [te.reduce_axis((_size(0), size)) for size in rows]
            largest = te.compute(
                (_size(1),), lambda _: te.max(of_rows[tuple(axes)], axis=axes), name="largest"
            )
        reach, smallest = _float(self.reach), _float(_SMALLEST)
        return te.compute(
            largest.shape,
            lambda *place: tirx.max(largest[place] / reach, smallest),
            name="scale",
        )

    def _code(self, quotient: Any) -> Any:
        low, high = _float(self.minimum), _float(self.maximum)
        value = quotient
        if self.levels is None:
            value = tirx.nearbyint(value)
        value = tirx.max(tirx.min(value, high), low)
        if self.levels is not None and self.levels != self.codes:
            value = tirx.Cast(self.levels, value)
        return tirx.Cast(self.codes, value)


def _size(value: int) -> Any:
    """All sizes are of 64 bits, as Relax's are: functions are joined only where types are equal."""
    return prim.IntImm("int64", value)


def _float(value: float) -> Any:
    return prim.FloatImm("float32", value)
