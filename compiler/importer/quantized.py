"""Quantized operators: every spelling of quantization becomes QDQ form.

ONNX has three spellings: *QDQ* (`qdq.py`), which is Relax's own; operators on codes
(`qoperator.py`), which become dequantize → float operator → quantize; and integer operators
(`integer.py`), which stay exact int32 arithmetic.
"""

from __future__ import annotations

from .few_bits import FEW_BIT_CONVERTERS
from .integer import INTEGER_CONVERTERS
from .qdq import QDQ_CONVERTERS
from .qoperator import QOPERATOR_CONVERTERS

CONVERTERS = {**QDQ_CONVERTERS, **QOPERATOR_CONVERTERS, **INTEGER_CONVERTERS, **FEW_BIT_CONVERTERS}
