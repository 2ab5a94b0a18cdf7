"""Which attention becomes one kernel on bytes, and that the rest keeps its meaning."""

from __future__ import annotations

from typing import Any

import pytest
import tvm
from fewbits.formats.parse import parse_format
from fewbits.ops.compressed.activations import fake_quantize_call
from fewbits.schedules.cuda.architecture import SM_90A
from fewbits.targets.cuda.patterns import select_kernels
from tvm import relax

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax
op: Any = relax.op


def _module(size: int = 32, values: str = "tensor") -> tvm.ir.IRModule:
    tokens = tvm.tirx.Var("t", "int64")
    shape = (2, 3, tokens, size)
    q, k, v = (relax.Var(name, _relax.TensorType(shape, "float32")) for name in "qkv")
    levels = parse_format("int8-narrow")
    builder = _relax.BlockBuilder()
    with builder.function("main", [q, k, v]):
        with builder.dataflow():
            left = builder.emit(fake_quantize_call(q, levels))
            right = builder.emit(fake_quantize_call(k, levels))
            right = builder.emit(op.permute_dims(right, (0, 1, 3, 2)))
            scores = builder.emit(op.matmul(left, right))
            scores = builder.emit(op.multiply(scores, relax.const(0.25, "float32")))
            weights = builder.emit(op.nn.softmax(scores, axis=-1))
            weights = builder.emit(fake_quantize_call(weights, levels))
            value = builder.emit(fake_quantize_call(v, levels, granularity=values))
            result = builder.emit_output(op.matmul(weights, value))
        builder.emit_func_output(result)
    return builder.get()


def _called(module: tvm.ir.IRModule) -> list[str]:
    return [v.name_hint for v in module.get_global_vars() if "attention" in v.name_hint]


def test_both_products_on_bytes_are_one_kernel() -> None:
    selected = select_kernels(_module(), SM_90A)
    assert [kernel.instruction for kernel in selected.kernels] == ["IMMA"]
    assert _called(selected.module) == ["int8_attention_sm_90a_call"]
    assert "matmul" not in selected.module["main"].script()


@pytest.mark.parametrize("module", [_module(size=24), _module(values="token")])
def test_other_sizes_and_scales_stay_as_they_are(module: tvm.ir.IRModule) -> None:
    selected = select_kernels(module, SM_90A)
    assert _called(selected.module) == []
    assert selected.module["main"].script().count("R.matmul") == 2
