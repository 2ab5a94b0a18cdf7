"""Epilogues: composed, converted, and named alike where they are alike."""

from __future__ import annotations

import pytest
from fewbits.schedules.cuda.epilogue import (
    Epilogue,
    Operand,
    converted,
    plain,
    scaled,
    stored_as,
    then,
)
from tvm import tirx
from tvm.ir import prim
from tvm.sym.analyzer import Analyzer


def _with_bias() -> Epilogue:
    total = tirx.Var("sum", "float32")
    bias = Operand.of("column", "float32", "bias")
    return Epilogue(total, total + bias.element, (bias,))


def _number(value: float) -> prim.FloatImm:
    return prim.FloatImm("float32", value)


def _value(epilogue: Epilogue, total: object, elements: list[object]) -> float:
    result = Analyzer().simplify(epilogue.at(total, elements))
    return float(result.value)


def test_scales_multiply_the_sum() -> None:
    epilogue = scaled("float32")
    total = prim.IntImm("int32", -6)
    assert _value(epilogue, total, [_number(0.5), _number(4.0)]) == -12.0


def test_one_after_the_other_keeps_operands_in_order() -> None:
    both = then(scaled("float32"), _with_bias())
    assert [operand.extends for operand in both.operands] == ["row", "column", "column"]
    elements = [_number(2.0), _number(3.0), _number(0.25)]
    assert _value(both, prim.IntImm("int32", 5), elements) == 30.25


def test_equal_epilogues_have_one_key_whatever_their_variables_are() -> None:
    assert then(scaled("float32"), _with_bias()).key == then(scaled("float32"), _with_bias()).key
    assert scaled("float16").key != scaled("float32").key
    assert scaled("float32", row=False).key != scaled("float32", column=False).key


def test_an_operand_in_half_precision_is_widened_where_it_is_used() -> None:
    epilogue = stored_as(_with_bias(), 0, "float16")
    assert epilogue.operands[0].dtype == "float16"
    assert epilogue.dtype == "float32"
    halves = [prim.FloatImm("float16", 0.5)]
    assert _value(epilogue, _number(1.0), list(halves)) == 1.5


@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
def test_results_are_converted(dtype: str) -> None:
    assert converted(plain("float32", "float32"), dtype).dtype == dtype
