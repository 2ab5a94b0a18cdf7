"""Moving numbers among lanes, and between formats, without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

T: Any = builder

_PACK = """
__device__ __forceinline__ unsigned {name}(float low, float high) {{
  unsigned word;
  asm("cvt.rn.{type}x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}}
"""


_EXP2 = """
__device__ __forceinline__ float fewbits_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
"""


def exp2(value: Any) -> Any:
    """Two to the power of a float32 number, to 2 units in the last place; tiny results are 0."""
    return cuda_func_call("fewbits_exp2", value, source_code=_EXP2, return_type="float32")


def pack(dtype: str, low: Any, high: Any) -> Any:
    """Two float32 numbers rounded to ``float16`` or ``bfloat16``, in one uint32."""
    name = f"fewbits_pack_{dtype}"
    source = _PACK.format(name=name, type={"float16": "f16", "bfloat16": "bf16"}[dtype])
    return cuda_func_call(name, low, high, source_code=source, return_type="uint32")


def held(value: Any) -> Any:
    """The value, computed here and once: it lies in a register of its own.

    What `T.Bind` names, TVM may compute again wherever it is used.
    """
    register = T.alloc_buffer((1,), str(value.ty.dtype), scope="local")
    T.buffer_store(register, value, [0])
    return register[0]


def quad(combine: Callable[[Any, Any], Any], value: Any) -> Any:
    """A float32 value combined over four neighbouring lanes, which all get the result."""
    for distance in (1, 2):
        value = held(value)
        other = tirx.call_pure_extern(
            "float32", "__shfl_xor_sync", tirx.const(0xFFFFFFFF, "uint32"), value, distance
        )
        value = held(combine(value, other))
    return value
