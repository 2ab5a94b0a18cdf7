"""LLM.int8: the patterns, the values against a reference written from the paper, and the limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, parse_pass
from fewbits.passes.calibration import Calibration
from fewbits.passes.layers import find_layers
from fewbits.passes.rewrite import Rewriter, operator_of
from fewbits.passes.split_outliers import SplitOutliers
from tvm import relax

K, N = 16, 8
OUTLIERS = [3, 11]
WEIGHTS = np.random.default_rng(2).normal(size=(2, K, N)).astype(np.float32)


def module_of() -> Any:
    """Two products of one input."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 5, K), "float32"))
    op: Any = relax.op
    with builder.function("main", [x]):
        with builder.dataflow():
            results = []
            for name, weight in zip("ab", WEIGHTS, strict=True):
                value = builder.normalize(op.matmul(x, relax.const(weight)))
                var = relax.Var(name, value.ty)
                builder.emit_normalized(relax.VarBinding(var, value))
                results.append(var)
        builder.emit_func_output(relax.Tuple(results))
    module = builder.get()
    attributes = {"input_names": ["x"], "output_names": ["a", "b"]}
    module["main"] = module["main"].with_attrs(attributes)
    return module


def samples(count: int = 4, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, 5, K)).astype(np.float32)
    x[..., OUTLIERS] *= 40
    return x


def context_of() -> PassContext:
    return PassContext(calibration=Calibration(lambda: iter([{"x": samples()}]), "test", 4))


def run(module: Any, x: np.ndarray) -> list[np.ndarray]:
    [values] = Evaluator(module).batched({"x": x})
    return [values[name].numpy().reshape(len(x), 5, N) for name in "ab"]


def reference(
    x: np.ndarray, weight: np.ndarray, columns: np.ndarray, wide: np.ndarray | None = None
) -> np.ndarray:
    """Steps 1 to 4 of the paper; `wide` are the weights of outliers, those of int8 by default."""
    inner = x.astype(np.float64).copy()
    inner[:, columns] = 0
    rows = np.abs(inner).max(1, keepdims=True)
    heads = np.abs(weight).max(0, keepdims=True).astype(np.float64)
    codes = np.rint(127 * inner / rows)
    weight_codes = np.rint(127 * weight / heads)
    product = codes @ weight_codes * rows * heads / 127**2
    if wide is None:
        wide = weight_codes * heads / 127
    return product + x[:, columns] @ wide[columns]


def operators(module: Any) -> list[str]:
    names = [operator_of(value) for _, value in Rewriter(module).bindings]
    return [str(name).rpartition(".")[2] for name in names]


@pytest.mark.parametrize("outlier_weights", ["float16", "int8"])
def test_static_columns_are_multiplied_apart(outlier_weights: Any) -> None:
    context = context_of()
    module = SplitOutliers(outlier_weights=outlier_weights).apply(module_of(), context)
    assert [note.data["outliers"] for note in context.notes] == [2, 2]
    # What both layers read is made once; each has its own two weights and sum.
    names = operators(module)
    assert [names.count(n) for n in ("multiply", "fake_quantize", "take")] == [1, 1, 1]
    assert [names.count(n) for n in ("matmul", "permute_dims", "add")] == [4, 4, 2]
    assert names.count("decode") == (2 if outlier_weights == "float16" else 4)
    assert names.count("astype") == (2 if outlier_weights == "float16" else 0)
    x = samples(seed=7)
    columns = np.isin(np.arange(K), OUTLIERS)
    for weight, result in zip(WEIGHTS, run(module, x), strict=True):
        if outlier_weights == "float16":
            apart = np.where(columns[:, None], 0, weight)
            wide = weight.astype(np.float16).astype(np.float64)
            expected = [reference(sample, apart, columns, wide) for sample in x]
        else:
            expected = [reference(sample, weight, columns) for sample in x]
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("outlier_weights", ["float16", "int8"])
def test_dynamic_columns_are_found_in_each_input(outlier_weights: Any) -> None:
    dynamic = SplitOutliers(mode="dynamic", outlier_weights=outlier_weights)
    module = dynamic.apply(module_of(), PassContext())
    names = operators(module)
    assert [names.count(n) for n in ("outlier_columns", "subtract", "multiply")] == [1, 1, 2]
    assert [names.count(n) for n in ("fake_quantize", "decode", "matmul", "add")] == [1, 2, 4, 2]
    assert names.count("astype") == (2 if outlier_weights == "float16" else 0)
    x = samples(seed=8)
    x[1] /= 50  # a sample without outliers
    for weight, result in zip(WEIGHTS, run(module, x), strict=True):
        for sample, found in zip(x, result, strict=True):
            columns = np.abs(sample).max(0) >= 6
            half = weight.astype(np.float16).astype(np.float64)
            wide = half if outlier_weights == "float16" else None
            expected = reference(sample, weight, columns, wide)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_outliers_ruin_plain_int8_and_splitting_saves_it() -> None:
    module, x = module_of(), samples(seed=5)
    exact = run(module, x)

    def error(**options: Any) -> float:
        values = run(SplitOutliers(**options).apply(module, context_of()), x)
        inner = [np.abs(value - sum_of).mean() for value, sum_of in zip(values, exact, strict=True)]
        return float(np.mean(inner))

    plain = error(threshold=0)
    assert error() < plain / 10
    # Here the large values meet weights in int8, whose rounding is the error that stays.
    assert error(outlier_weights="int8") < 0.75 * plain
    assert error(mode="dynamic") < 0.75 * plain


def test_threshold_zero_is_plain_int8_without_calibration() -> None:
    context = PassContext()
    module = SplitOutliers(threshold=0).apply(module_of(), context)
    assert operators(module).count("matmul") == 2
    assert [note.data["outliers"] for note in context.notes] == [0, 0]
    x = samples(seed=6)
    none = np.zeros(K, bool)
    for weight, result in zip(WEIGHTS, run(module, x), strict=True):
        expected = [reference(sample, weight, none) for sample in x]
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


def test_more_outliers_than_capacity_leave_the_layer_in_float16() -> None:
    context = context_of()
    module = SplitOutliers(capacity=1).apply(module_of(), context)
    assert "fake_quantize" not in operators(module)
    assert all("float16" in note.message for note in context.notes)
    x = samples(seed=4)
    for weight, result in zip(WEIGHTS, run(module, x), strict=True):
        expected = x @ weight.astype(np.float16).astype(np.float32)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


def test_layers_that_are_ignored_stay_as_they_are() -> None:
    module = SplitOutliers(ignore=("b",)).apply(module_of(), context_of())
    plain = [layer.name for layer in find_layers(module) if layer.tensor is None]
    assert plain == ["b"]
    x = samples(seed=3)
    np.testing.assert_array_equal(run(module, x)[1], run(module_of(), x)[1])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(FewbitsError, match="sample inputs"):
        SplitOutliers().apply(module_of(), PassContext())
    with pytest.raises(FewbitsError, match="compressed"):
        once = SplitOutliers(threshold=0).apply(module_of(), PassContext())
        SplitOutliers(threshold=0).apply(once, PassContext())
    with pytest.raises(FewbitsError, match="negative"):
        parse_pass("split_outliers{threshold=-1}")
    huge = SplitOutliers(capacity=0)
    WEIGHTS[0, 0, 0], kept = 1e6, WEIGHTS[0, 0, 0]
    try:
        with pytest.raises(FewbitsError, match="float16"):
            huge.apply(module_of(), context_of())
    finally:
        WEIGHTS[0, 0, 0] = kept
