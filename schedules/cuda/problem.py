"""A product that kernels compute, with all that a template has to know to make one."""

from __future__ import annotations

import dataclasses

from .epilogue import Epilogue
from .weight_format import WeightFormat


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """``y[m, n] = epilogue(Σ_k x[m, k] · w[n, k])``.

    A kernel's parameters are x [M, K], the weight's arrays (`WeightFormat.arrays`), the epilogue's
    operands and y [M, N], all dense, row by row, and aligned to 16 bytes. M is known at run time
    only, from 1 on. Sums are int32 where both sides are integers, else float32.

    Attributes:
        inputs: K.
        outputs: N.
        activation: dtype of x: ``int8``, ``float8_e4m3fn``, ``float8_e5m2``, ``float16``,
            ``bfloat16`` or ``float32``.
        weight: how the weight is stored.
        epilogue: what happens to the sum; its dtype is y's.
    """

    inputs: int
    outputs: int
    activation: str
    weight: WeightFormat
    epilogue: Epilogue

    @property
    def accumulator(self) -> str:
        """dtype of the sums."""
        return "int32" if self.activation == "int8" else "float32"

    @property
    def key(self) -> str:
        """Text that equal problems share: the name under which tuned sizes are recorded."""
        return (
            f"linear {self.activation} {self.weight.key} K={self.inputs} N={self.outputs} "
            f"-> {self.epilogue.key}"
        )
