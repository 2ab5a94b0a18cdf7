"""Smoothing keeps the function wherever the division goes, and lowers the products' error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerChannel
from fewbits.formats.parse import parse_format
from fewbits.ops.compressed.activations import fake_quantize_call
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, parse_pass
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.layers import Replacement, find_layers, replace_layers
from fewbits.passes.smooth import Smooth
from fewbits.passes.smoothing.factors import smoothing_factors
from onnx import numpy_helper, parser

#: Per test: the graph's body; every weight that is not declared elsewhere is drawn at random.
GRAPHS = {
    "norm": (
        "float[1,5,8] x",
        "float[8] g, float[8] b, float[8,6] wq, float[8,6] wk",
        "n = LayerNormalization<axis=-1>(x, g, b)  q = MatMul(n, wq)  k = MatMul(n, wk)",
        "q, k",
    ),
    "residual": (
        "float[1,5,8] x",
        "float[8] g, float[8] b, float[8,8] w",
        "n = LayerNormalization<axis=-1>(x, g, b)  h = MatMul(n, w)  y = Add(h, n)",
        "y",
    ),
    "relu": (
        "float[1,5,8] x",
        "float[8,6] w1, float[6] b1, float[6,4] w2",
        "m = MatMul(x, w1)  a = Add(m, b1)  r = Relu(a)  y = MatMul(r, w2)",
        "y",
    ),
    "gelu": (
        "float[1,5,8] x",
        "float[8,6] w1, float[6] b1, float[6,4] w2",
        "m = MatMul(x, w1)  a = Add(m, b1)  r = Sigmoid(a)  y = MatMul(r, w2)",
        "y",
    ),
    "gate": (
        "float[1,5,8] x",
        "float[8,6] w1, float[8,6] w3, float[6,4] w2",
        "a = MatMul(x, w1)  s = Sigmoid(a)  b = MatMul(x, w3)  p = Mul(s, b)  y = MatMul(p, w2)",
        "y",
    ),
    "attention": (
        "float[1,5,8] x",
        "float[8,12] wv, float[12] bv, float[12,4] wo, float[1,3,5,5] p",
        "m = MatMul(x, wv)  v = Add(m, bv)  r = Reshape(v, s1)  t = Transpose<perm=[0,2,1,3]>(r)"
        "  i = Cos(xp)  c = MatMul(i, t)  u = Transpose<perm=[0,2,1,3]>(c)  z = Reshape(u, s2)"
        "  y = MatMul(z, wo)",
        "y",
    ),
    "convolutions": (
        "float[1,4,6,6] x",
        "float[6,2,3,3] w1, float[6] b1, float[6,1,3,3] w2, float[150,5] w3",
        "a = Conv<group=2, pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)"
        "  c = Conv<group=6, pads=[0,0,1,1]>(r, w2)  q = LeakyRelu(c)  f = Flatten(q)"
        "  y = MatMul(f, w3)",
        "y",
    ),
}


def module_of(name: str, scale_inputs: bool = True) -> Any:
    """A canonical module of one of the graphs, with uneven weights."""
    inputs, weights, body, outputs = GRAPHS[name]
    extra = "float[1,3,5,5] xp" if name == "attention" else ""
    named = ", ".join(filter(None, (inputs, extra)))
    results = ", ".join(f"float[] {output}" for output in outputs.split(", "))
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> g ({named}) => ({results}) <{weights}> '
        f"{{ {body} }}"
    )
    model = parser.parse_model(text)
    rng = np.random.default_rng(1)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape)
        if scale_inputs and len(shape) > 1:
            array *= np.exp(rng.normal(size=[shape[0]] + [1] * (len(shape) - 1)))
        tensor = numpy_helper.from_array(array.astype(np.float32), value.name)
        model.graph.initializer.append(tensor)
    for key, shape in (("s1", [1, 5, 3, 4]), ("s2", [1, 5, 12])):
        if name == "attention":
            model.graph.initializer.append(numpy_helper.from_array(np.array(shape), key))
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return canonicalize(import_onnx(model).module)


def samples(module: Any, count: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs whose channels differ in size by e^2 either way; the last one is always 0."""
    rng = np.random.default_rng(seed)
    found = {}
    for parameter in module["main"].params:
        shape = [int(extent) for extent in parameter.ty.shape.values]
        channels = [shape[1] if len(shape) == 4 and parameter.name == "x" else shape[-1]]
        at = 1 if len(shape) == 4 and parameter.name == "x" else len(shape) - 1
        sizes = np.exp(np.random.default_rng(5).uniform(-2, 2, channels))
        sizes[-1] = 0.0
        sizes = sizes.reshape([-1] + [1] * (len(shape) - 1 - at))
        found[parameter.name] = (rng.normal(size=[count, *shape[1:]]) * sizes).astype(np.float32)
    return found


def context_of(module: Any) -> PassContext:
    data = samples(module)
    return PassContext(calibration=Calibration(lambda: iter([data]), "test", 8))


def run(module: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    values = next(iter(Evaluator(module).batched(inputs)))
    return [value.numpy() for value in values.values()]


def assert_same(before: Any, after: Any) -> None:
    inputs = samples(before, seed=9)
    for old, new in zip(run(before, inputs), run(after, inputs), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5 * np.abs(old).max())


def folds(context: PassContext) -> list[str]:
    return [note.data["fold"] for note in context.notes if "fold" in note.data]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("norm", ["norm"]),
        ("residual", []),
        ("relu", ["previous"]),
        ("gelu", []),
        ("gate", ["previous"]),
        ("attention", ["previous"]),
        ("convolutions", ["previous", "previous"]),
    ],
)
def test_the_division_folds_where_it_can_and_the_function_stays(
    name: str, expected: list[str]
) -> None:
    module, alpha = module_of(name), 0.7
    context = context_of(module)
    after = Smooth(alpha=alpha).apply(module, context)
    assert folds(context) == expected
    assert_same(module, after)
    operators = {layer.name: layer.operator for layer in find_layers(module)}
    assert operators == {layer.name: layer.operator for layer in find_layers(after)}
    if expected:
        changed = [
            not np.array_equal(a.weight, b.weight)
            for a, b in zip(find_layers(module), find_layers(after), strict=True)
        ]
        assert any(changed)


@pytest.mark.parametrize("name", list(GRAPHS))
def test_an_explicit_product_is_possible_everywhere(name: str) -> None:
    module = module_of(name)
    context = context_of(module)
    after = Smooth(fold=("multiply",)).apply(module, context)
    assert set(folds(context)) == {"multiply"}
    assert_same(module, after)


def test_factors_are_those_of_the_paper_over_all_readers() -> None:
    module = module_of("norm")
    context = context_of(module)
    after = Smooth(alpha=0.3).apply(module, context)
    layers = find_layers(module)
    name = layers[0].input.name  # pyright: ignore[reportAttributeAccessIssue]
    values = next(iter(Evaluator(module).batched(samples(module), [name])))[name]
    activations = values.abs().reshape(-1, 8).amax(0).numpy().astype(np.float64)
    weights = np.max([np.abs(layer.weight).max(0) for layer in layers], axis=0)
    factors = activations**0.3 / weights**0.7
    for old, new in zip(layers, find_layers(after), strict=True):
        np.testing.assert_allclose(new.weight, old.weight * factors, rtol=1e-5)


def test_degenerate_channels_get_harmless_factors() -> None:
    factors = smoothing_factors(np.array([0.0, 4.0, 1e-30, 2.0]), np.array([1, 0, 1, 1e-9]), 0.5)
    np.testing.assert_allclose(factors, [1.0, 2.0 / np.sqrt(1e-5), 1e-5, np.sqrt(2 / 1e-5)])


def int8(module: Any) -> Any:
    number_format = parse_format("int8-narrow")

    def quantize(layer: Any) -> Replacement:
        tensor = compress(layer.weight, number_format, granularity=PerChannel(0))
        return Replacement(tensor, lambda x: fake_quantize_call(x, number_format))

    return replace_layers(module, quantize)


@pytest.mark.parametrize("name", ["norm", "residual", "gate"])
def test_the_search_finds_what_lowers_the_error(name: str) -> None:
    module = module_of(name)
    context = context_of(module)
    smooth = Smooth(alpha="search", fold=("norm", "previous", "multiply"))
    after = smooth.apply(module, context)
    assert_same(module, after)
    inputs = samples(module, count=64, seed=3)
    exact = run(module, inputs)

    def error(candidate: Any) -> float:
        values = run(int8(candidate), inputs)
        return sum(float(np.square(a - b).sum()) for a, b in zip(values, exact, strict=True))

    assert error(after) < error(module)
    ratios = [note.data["error_ratio"] for note in context.notes if "error_ratio" in note.data]
    assert ratios and all(ratio < 1 for ratio in ratios)


def test_the_search_knows_windows_and_groups() -> None:
    module = module_of("convolutions")
    context = context_of(module)
    after = Smooth(alpha="search", fold=("previous", "multiply")).apply(module, context)
    assert_same(module, after)
    ratios = [note.data["error_ratio"] for note in context.notes if "error_ratio" in note.data]
    assert ratios and all(ratio < 1 for ratio in ratios)


def test_a_better_exponent_has_a_smaller_error_in_the_model() -> None:
    """The trial's error is that of the compressed module itself."""
    module = module_of("norm")
    context = context_of(module)
    Smooth(alpha="search").apply(module, context)
    [note] = [note for note in context.notes if "error_ratio" in note.data]
    inputs = samples(module)
    exact = run(module, inputs)

    def error(alpha: float | None) -> float:
        smoothed = module if alpha is None else Smooth(alpha=alpha).apply(module, context)
        values = run(int8(smoothed), inputs)
        return sum(float(np.square(a - b).sum()) for a, b in zip(values, exact, strict=True))

    assert note.data["error_ratio"] == pytest.approx(error(note.data["alpha"]) / error(None), 1e-3)
    assert all(error(note.data["alpha"]) <= error(alpha) * 1.001 for alpha in (0.0, 0.3, 0.6, 1.0))


def test_one_named_reader_takes_its_site_and_one_ignored_keeps_it() -> None:
    module = module_of("norm")
    context = context_of(module)
    Smooth(targets=("q",)).apply(module, context)
    assert folds(context) == ["norm"]
    assert Smooth(ignore=("k",)).apply(module, context) is module


def test_what_cannot_be_is_refused() -> None:
    module = module_of("norm")
    with pytest.raises(FewbitsError, match="sample inputs"):
        Smooth().apply(module, PassContext())
    with pytest.raises(FewbitsError, match="compressed"):
        Smooth().apply(int8(module), context_of(module))
    rounded = parse_pass("quantize_activations").apply(module, PassContext())
    with pytest.raises(FewbitsError, match="rounded"):
        Smooth().apply(rounded, context_of(module))
    with pytest.raises(FewbitsError, match="between 0 and 1"):
        parse_pass("smooth{alpha=1.5}")
    with pytest.raises(FewbitsError, match="matches no layer"):
        Smooth(targets=("nothing",)).apply(module, context_of(module))


def test_the_text_form_reads_back() -> None:
    smooth = Smooth(alpha="search", fold=("norm", "multiply"), targets=("re:.*q",))
    assert parse_pass(str(smooth)) == smooth
