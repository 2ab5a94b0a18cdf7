import pytest
from fewbits.errors import FewbitsError
from fewbits.ops.symbolic import (
    equal,
    evaluate,
    extents_of,
    is_static,
    is_symbol,
    simplified,
    spell,
    spell_shape,
    symbols,
)
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax, tirx

N, T = tirx.Var("N", "int64"), tirx.Var("T", "int64")

#: Expressions and what they are in Python.
EXPRESSIONS = [
    (N * T + 3, lambda n, t: n * t + 3),
    (N - T, lambda n, t: n - t),
    (tirx.floordiv(N * 7 - T, 3), lambda n, t: (n * 7 - t) // 3),
    (tirx.floormod(N - T, 5), lambda n, t: (n - t) % 5),
    (tirx.truncdiv(N - T, 3), lambda n, t: int((n - t) / 3)),
    (tirx.min(N, T), min),
    (tirx.max(N, 4), lambda n, _t: max(n, 4)),
    (tirx.if_then_else(N < T, N + 1, T * 2), lambda n, t: n + 1 if n < t else t * 2),
    (tirx.Select(tirx.all(N >= 3, T != 4), N, T), lambda n, t: n if n >= 3 and t != 4 else t),
    (
        tirx.Select(tirx.Not(tirx.any(N > 3, T <= 2)), N, T),
        lambda n, t: t if n > 3 or t <= 2 else n,
    ),
    (tirx.Cast("int32", N) + 1, lambda n, _t: n + 1),
]


@pytest.mark.parametrize("case", EXPRESSIONS, ids=lambda case: spell(case[0]))
@given(n=st.integers(1, 50), t=st.integers(1, 50))
def test_expressions_are_computed_as_python_does(case, n, t):
    expression, expected = case
    assert evaluate(expression, {N: n, T: t}) == expected(n, t)


def test_a_symbol_without_a_size_is_named():
    with pytest.raises(FewbitsError, match="'T'"):
        evaluate(N * T, {N: 3})


def test_every_dimension_has_an_element():
    assert simplified(tirx.max(N, 1) - N) == 0
    assert simplified(tirx.floordiv(N * T * 8, N * 4) - T * 2) == 0
    assert simplified(5) == 5


def test_equality_is_proven():
    assert equal((N + 1) * T, N * T + T)
    assert not equal(N * T, N + T)
    assert not equal(N, T)


def test_symbols_are_found_once_in_order():
    assert [s.name for s in symbols([T + 1, N * T, 3])] == ["T", "N"]
    assert is_symbol(N)
    assert not is_symbol(relax.Var("x", relax.TensorType((2,), "float32")))


def test_sizes_are_spelled_as_people_write_them():
    assert spell_shape([N, 3, T * 2 + 1]) == "[N, 3, T * 2 + 1]"
    assert spell((N + 1) * T) == "(N + 1) * T"
    assert spell(tirx.min(N, 4)) == "min(N, 4)"
    assert spell(tirx.floordiv(N, 2)) == "N // 2"


def test_shapes_of_tensors():
    open_ = relax.Var("x", relax.TensorType((N, 3), "float32"))
    fixed = relax.Var("x", relax.TensorType((2, 3), "float32"))
    assert extents_of(fixed) == (2, 3)
    assert extents_of(open_)[1] == 3
    assert is_static(fixed)
    assert not is_static(open_)
    assert not is_static(relax.Tuple([fixed, open_]))
