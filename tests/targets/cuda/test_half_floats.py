"""Which values are stored in half precision, and which keep float32."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.rewrite import Rewriter
from fewbits.targets.cuda.checks import check_scales
from fewbits.targets.cuda.half import in_half
from tvm import relax

RNG = np.random.default_rng(2)


def _module(build, *shapes):
    """``main`` over float32 parameters; `build` gets an emitter of named values."""
    parameters = [relax.Var(f"x{i}", relax.TensorType(s, "float32")) for i, s in enumerate(shapes)]
    builder = relax.BlockBuilder()
    names = {"input_names": [p.name for p in parameters], "output_names": ["y"]}
    with builder.function("main", parameters, attrs=names):
        with builder.dataflow():

            def emit(value, name):
                var = relax.DataflowVar(name, builder.normalize(value).ty)
                builder.emit_normalized(relax.VarBinding(var, builder.normalize(value)))
                return var

            result = builder.emit_output(build(emit, *parameters))
        builder.emit_func_output(result)
    return builder.get()


def _dtypes(module):
    return {var.name: str(var.ty.dtype) for var, _ in Rewriter(module).bindings}


def _run(module, *arrays):
    evaluator = Evaluator(module)
    named = dict(zip(evaluator.input_names, (a[None] for a in arrays), strict=True))
    (values,) = evaluator.batched(named)
    return next(iter(values.values())).numpy()[0]


def _weight(*shape):
    return relax.const((RNG.normal(size=shape) / 4).astype(np.float32))


def _two_products(emit, x):
    a = emit(relax.op.matmul(x, _weight(16, 16)), "one")
    b = emit(relax.op.nn.relu(a), "relu")
    c = emit(relax.op.add(b, a), "sum")
    return emit(relax.op.matmul(c, _weight(16, 8)), "two")


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_products_read_and_write_halves_and_the_interface_stays(dtype, bound):
    module = _module(_two_products, [4, 16])
    halves = in_half(module, dtype)
    products = [
        value
        for _, value in Rewriter(halves).bindings
        if str(getattr(value.op, "name", "")) == "relax.matmul"
    ]
    assert len(products) == 2
    for product in products:
        assert {str(a.ty.dtype) for a in product.args} == {dtype}
        assert str(product.ty.dtype) == "float32"
    assert str(halves["main"].ret_ty.dtype) == "float32"
    x = RNG.normal(size=(4, 16)).astype(np.float32)
    want, got = _run(module, x), _run(halves, x)
    assert 0 < np.linalg.norm(got - want) <= bound * np.linalg.norm(want)


def test_float32_changes_nothing():
    module = _module(_two_products, [4, 16])
    assert in_half(module, "float32").same_as(module)


def test_a_mask_of_the_largest_numbers_does_not_become_infinite():
    """Softmax over a row that is masked whole gives equal shares, as in float32."""

    def build(emit, x, mask):
        lowest = relax.const(np.float32(np.finfo(np.float32).min))
        scores = emit(relax.op.matmul(x, _weight(16, 16)), "scores")
        penalty = emit(relax.op.multiply(mask, lowest), "penalty")
        masked = emit(relax.op.add(scores, penalty), "masked")
        return emit(relax.op.nn.softmax(masked), "shares")

    module = _module(build, [2, 16], [2, 16])
    halves = in_half(module, "float16")
    assert _dtypes(halves)["masked"] == "float32"
    mask = np.ones((2, 16), np.float32)
    mask[1, 8:] = 0
    x = RNG.normal(size=(2, 16)).astype(np.float32)
    want, got = _run(module, x, mask), _run(halves, x, mask)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_means_of_squares_are_not_rounded():
    """A norm that is written out: squares of 300 are beyond float16."""

    def build(emit, x):
        a = emit(relax.op.matmul(x, relax.const(np.eye(16, dtype=np.float32))), "a")
        square = emit(relax.op.multiply(a, a), "square")
        mean = emit(relax.op.mean(square, -1, keepdims=True), "mean")
        shifted = emit(relax.op.add(mean, relax.const(np.float32(1e-12))), "shifted")
        root = emit(relax.op.sqrt(shifted), "root")
        return emit(relax.op.divide(a, root), "normed")

    module = _module(build, [3, 16])
    halves = in_half(module, "float16")
    dtypes = _dtypes(halves)
    assert {dtypes[name] for name in ("square", "mean", "shifted", "root")} == {"float32"}
    for size in (300.0, 1e-4):
        x = (size * RNG.normal(size=(3, 16))).astype(np.float32)
        np.testing.assert_allclose(_run(halves, x), _run(module, x), atol=4e-3)


def test_data_is_moved_as_halves():
    def build(emit, x):
        a = emit(relax.op.matmul(x, _weight(16, 16)), "a")
        b = emit(relax.op.reshape(a, [4, 4, 4]), "b")
        c = emit(relax.op.permute_dims(b, [1, 0, 2]), "c")
        parts = emit(relax.op.split(c, 2, 0), "parts")
        first = emit(relax.TupleGetItem(parts, 0), "first")
        return emit(relax.op.concat(relax.Tuple([first, first]), 0), "both")

    module = _module(build, [4, 16])
    halves = in_half(module, "float16")
    dtypes = {
        var.name: str(var.ty.dtype)
        for var, _ in Rewriter(halves).bindings
        if isinstance(var.ty, relax.TensorType)
    }
    assert {dtypes[name] for name in ("b", "c", "first")} == {"float16"}
    x = RNG.normal(size=(4, 16)).astype(np.float32)
    np.testing.assert_allclose(_run(halves, x), _run(module, x), atol=2e-3)


def test_weights_beyond_the_range_are_refused():
    def build(emit, x):
        return emit(relax.op.matmul(x, relax.const(np.full((16, 2), 7e4, np.float32))), "layer")

    module = _module(build, [4, 16])
    with pytest.raises(FewbitsError) as caught:
        in_half(module, "float16")
    assert caught.value.code == "half-overflow" and caught.value.where == "layer"
    in_half(module, "bfloat16")


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_scales_without_sense_are_refused(scale):
    def build(emit, x):
        zero, step = relax.const(np.int8(0)), relax.const(np.float32(scale))
        codes = emit(relax.op.quantize(x, step, zero, out_dtype="int8"), "codes")
        return emit(relax.op.dequantize(codes, step, zero, out_dtype="float32"), "values")

    with pytest.raises(FewbitsError) as caught:
        check_scales(_module(build, [4, 16]))
    assert caught.value.code == "bad-scales" and caught.value.where == "codes"
