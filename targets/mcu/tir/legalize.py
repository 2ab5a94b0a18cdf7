"""Legalizations that generated C needs otherwise than TVM has them.

TVM sends cumulative sums, sorting and the like to run-time library calls, and rounds quantization
half away from zero where ONNX rounds half to even.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

#: For ``relax.transform.LegalizeOps``, by operator.
LEGALIZATIONS: dict[str, Callable[[relax.BlockBuilder, relax.Call], relax.Expr]] = {}
