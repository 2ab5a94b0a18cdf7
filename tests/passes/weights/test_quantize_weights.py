"""Weights in few bits: every format, strategy and solver; what cannot be is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, make_pass, parse_pass
from fewbits.passes.calibration import Calibration
from fewbits.passes.layers import find_layers
from fewbits.passes.weights.quantize_weights import QuantizeWeights
from onnx import numpy_helper, parser

Make = Callable[..., PassContext]


def tensors(module: Any) -> dict[str, Any]:
    return {layer.name: layer.tensor for layer in find_layers(module) if layer.tensor is not None}


def bits_of(context: PassContext) -> dict[str, int]:
    return {n.layer: n.data["total_bits"] for n in context.notes if "total_bits" in n.data}


def error(before: Any, after: Any, context: PassContext) -> float:
    """Squared error of the output over all calibration samples."""
    assert context.calibration is not None
    (batch,) = context.calibration.batches()
    total = 0.0
    for one, other in zip(
        Evaluator(before).batched(batch), Evaluator(after).batched(batch), strict=True
    ):
        total += float(((one["y"] - other["y"]) ** 2).sum())
    return total


@pytest.mark.parametrize(
    ("strategy", "scales"), [("tensor", 1), ("channel", 16), ("group", 48), ("block", 48)]
)
def test_every_strategy_has_its_scales_and_the_note_counts_every_bit(
    module: Any, strategy: str, scales: int
) -> None:
    # 24 inputs in groups of 10: a short third group per row; 384 values in blocks of 8.
    size = 8 if strategy == "block" else 10
    context = PassContext()
    small = QuantizeWeights(strategy=strategy, group_size=size).apply(module, context)
    q = tensors(small)["q"]
    assert q.scales.values().size == scales
    assert bits_of(context)["q"] == q.total_bits == 4 * 24 * 16 + 16 * scales
    assert set(tensors(small)) == {"q", "k", "v", "h", "y"}


@pytest.mark.parametrize(
    "text",
    [
        "format=nf4", "format=fp4_e2m1", "format=bcq2; group_size=12", "format=flint4",
        "format=int3; solver=mse", "num_bits=4; type=float", "num_bits=6; type=float",
        "num_bits=4; type=nf", "num_bits=3", "format=uint4; symmetric=false",
        "format=int8-narrow; strategy=channel; scale_storage=float32",
        "format=nf4; strategy=block; group_size=16; scale_storage=double",
        "format=int4; scale_storage=e8m0",
    ],
)  # fmt: skip
def test_the_module_computes_with_what_is_stored(module: Any, text: str) -> None:
    small = parse_pass(f"quantize_weights{{{text}}}").apply(module, PassContext())
    decoded = {name: tensor.decode() for name, tensor in tensors(small).items()}
    x = np.random.default_rng(0).normal(size=(12, 24)).astype(np.float32)
    q, k, v = (x @ decoded[name].T for name in "qkv")
    scores = q @ k.T
    p = np.exp(scores - scores.max(-1, keepdims=True))
    a = p / p.sum(-1, keepdims=True) @ v
    wanted = np.maximum(a @ decoded["h"].T, 0) @ decoded["y"].T
    found = Evaluator(small)({"x": torch.from_numpy(x)[None]})["y"][0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


def test_words_that_users_know_mean_the_same_format() -> None:
    for text, name in (
        ("num_bits=4", "int4"), ("num_bits=8; type=float", "fp8_e4m3fn"), ("type=nf", "nf4"),
        ("num_bits=3; type=bcq", "bcq3"), ("type=float", "fp4_e2m1"),
        ("num_bits=5; type=int", "int5"),
    ):  # fmt: skip
        made: Any = parse_pass(f"quantize_weights{{{text}}}")
        ((_, options), *_) = made.plan(_one_layer())
        assert options.format_name == name


def _one_layer() -> Any:
    from onnx import helper, numpy_helper, parser

    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,8] x) => (float[1,4] y) '
        "<float[8,4] w> { y = MatMul(x, w) }"
    )
    del model.graph.value_info[:]
    array = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(array, "w"))
    assert helper is not None
    from fewbits.compiler.importer import import_onnx

    return import_onnx(model).module


def test_gptq_beats_rounding_on_the_data_and_costs_the_same(module: Any, context: Make) -> None:
    found = {}
    for solver in ("rtn", "mse", "gptq"):
        made = context()
        small = make_pass(
            "quantize_weights", {"format": "int3", "strategy": "channel", "solver": solver}
        ).apply(module, made)
        found[solver] = error(module, small, made), sum(bits_of(made).values())
    assert found["gptq"][0] < 0.6 * found["rtn"][0]
    assert found["gptq"][0] < found["mse"][0]
    assert len({bits for _, bits in found.values()}) == 1


@pytest.mark.parametrize("solver", ["gptq", "sparsegpt"])
def test_convolutions_are_solved_group_by_group(
    convolutions: Any, context: Make, solver: str
) -> None:
    sparsity = "2:4" if solver == "sparsegpt" else None
    rounded, solved = (
        {"format": "int3", "strategy": "channel", "ignore": ["d"] if sparsity else []},
        {"solver": solver, "sparsity": sparsity},
    )
    baseline = {"solver": "magnitude", "sparsity": "2:4"} if sparsity else {"solver": "rtn"}
    errors = []
    for changes in (solved, baseline):
        made = context((4, 9, 8))
        small = make_pass("quantize_weights", {**rounded, **changes}).apply(convolutions, made)
        errors.append(error(convolutions, small, made))
        for layer in find_layers(small):
            if layer.tensor is not None:
                assert layer.tensor.decode().reshape(layer.shape).shape == layer.weight.shape
    assert errors[0] < errors[1]


@pytest.mark.parametrize("text", ["quantize_weights{num_bits=2; solver=gptq; strategy=channel",
                                  "quantize_weights{num_bits=3; strategy=channel",
                                  "prune{sparsity=0.6"])  # fmt: skip
def test_layers_make_up_for_what_happened_to_their_inputs(
    module: Any, convolutions: Any, context: Make, text: str
) -> None:
    for model, shape in ((module, (12, 24)), (convolutions, (4, 9, 8))):
        errors = []
        for more in ("}", "; compensate=true}"):
            given = context(shape, 64)
            errors.append(error(model, parse_pass(text + more).apply(model, given), given))
        assert errors[1] < errors[0], shape


def test_tables_have_no_inputs_to_make_up_for() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (int64[1,12] x) => (float[1,12,10] y)
    { e = Gather(table, x)
      y = MatMul(e, w) }
    """
    model = parser.parse_model(text)
    for name, shape in {"table": (24, 16), "w": (16, 10)}.items():
        array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    ids = np.random.default_rng(0).integers(0, 24, (16, 12))
    given = PassContext(calibration=Calibration(lambda: [{"x": ids}], "test"))
    compensated = make_pass("quantize_weights", {"embeddings": True, "compensate": True})
    small = compensated.apply(import_onnx(model).module, given)
    assert set(tensors(small)) == {"e", "y"}


def test_groups_of_a_convolution_run_along_its_whole_sum(convolutions: Any) -> None:
    small = QuantizeWeights(group_size=10).apply(convolutions, PassContext())
    assert tensors(small)["c"].shape == (8, 36)
    assert tensors(small)["c"].scales.shape == (8, 4)
    x = torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    layers = {layer.name: torch.from_numpy(layer.weight) for layer in find_layers(small)}
    pad = torch.nn.functional.pad
    c = torch.relu(torch.conv2d(pad(x, (1, 0, 1, 1)), layers["c"]))
    d = torch.conv2d(pad(c, (1, 2, 0, 0)), layers["d"], groups=8)
    wanted = torch.conv2d(d, layers["y"], groups=2)
    torch.testing.assert_close(Evaluator(small)({"x": x})["y"], wanted, rtol=1e-4, atol=1e-5)


def test_one_scale_for_a_grouped_convolution_cannot_be_solved(
    convolutions: Any, context: Make
) -> None:
    made = QuantizeWeights(strategy="tensor", solver="gptq")
    with pytest.raises(FewbitsError, match="group by group") as caught:
        made.apply(convolutions, context((4, 9, 8)))
    assert caught.value.code == "bad-granularity" and caught.value.where == "d"


def test_adaptive_tensors_choose_for_themselves(module: Any) -> None:
    context = PassContext()
    make_pass("quantize_weights", {"format": "ant4", "strategy": "channel", "solver": "mse"}).apply(
        module, context
    )
    for note in context.notes:
        losses = note.data["losses"]
        assert set(losses) == {"int4", "pot4", "flint4"}
        assert note.data["format"] == min(losses, key=losses.get)


def test_layers_are_selected_and_overridden(module: Any) -> None:
    options = {
        "targets": ["matmul"],
        "ignore": ["v"],
        "strategy": "channel",
        "overrides": {
            "re:[qk]": {"format": "nf4"},
            "k": {"num_bits": 8, "scale_storage": "float32"},
        },
    }
    made = make_pass("quantize_weights", options)
    found = tensors(made.apply(module, PassContext()))
    assert {name: tensor.number_format.name for name, tensor in found.items()} == {
        "q": "nf4", "k": "int8", "h": "int4", "y": "int4",
    }  # fmt: skip
    assert found["k"].scales.storage == "float32" and found["q"].scales.storage == "float16"
    assert parse_pass(str(made)) == made


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"format": "int9"}, "bad-format"),
        ({"format": "intt4"}, "unknown-format"),
        ({"format": "int4", "num_bits": 3}, "unknown-option"),
        ({"strategy": "row"}, "unknown-option"),
        ({"type": "complex"}, "unknown-option"),
        ({"group_size": 0}, "bad-granularity"),
        ({"solver": "gptg"}, "unknown-option"),
        ({"solver": "sparsegpt"}, "bad-solver"),
        ({"solver": "magnitude", "sparsity": "bitmap"}, "bad-sparsity"),
        ({"solver": "magnitude", "sparsity": 1.0}, "bad-sparsity"),
        ({"format": "nf4", "symmetric": False}, "bad-solver"),
        ({"targets": ["nowhere"]}, "unknown-layer"),
        ({"overrides": {"q": {"bits": 4}}}, "unknown-option"),
        ({"overrides": {"q": {"group_size": "many"}}}, "unknown-option"),
        ({"overrides": {"nowhere": {"num_bits": 4}}}, "unknown-layer"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(module: Any, options: dict[str, Any], code: str) -> None:
    with pytest.raises(FewbitsError) as caught:
        make_pass("quantize_weights", options).apply(module, PassContext())
    assert caught.value.code == code


def test_a_pattern_that_does_not_fit_names_the_layer(module: Any) -> None:
    options = {"solver": "magnitude", "sparsity": "3:16", "strategy": "channel"}
    with pytest.raises(FewbitsError) as caught:
        make_pass("quantize_weights", options).apply(module, PassContext())
    assert caught.value.code == "bad-sparsity" and caught.value.where == "q"


def test_solvers_that_need_data_say_so(module: Any) -> None:
    with pytest.raises(FewbitsError, match="sample inputs") as caught:
        QuantizeWeights(solver="gptq").apply(module, PassContext())
    assert caught.value.code == "no-calibration" and "--calibration" in (caught.value.hint or "")


def test_too_little_data_is_damped_and_said(module: Any, context: Make) -> None:
    made = context(count=1)
    small = QuantizeWeights(solver="gptq").apply(module, made)
    said = [n.message for n in made.notes if n.layer == "q"]
    assert any("too few" in message for message in said)
    assert all(np.isfinite(t.decode()).all() for t in tensors(small).values())


def test_data_that_is_not_finite_names_the_first_layer_it_meets(module: Any) -> None:
    samples = np.zeros((3, 12, 24), np.float32)
    samples[1, 2, 3] = np.nan
    bad = PassContext(calibration=Calibration(lambda: [{"x": samples}], "test"))
    with pytest.raises(FewbitsError) as caught:
        QuantizeWeights(solver="gptq").apply(module, bad)
    assert caught.value.code == "not-finite" and caught.value.where == "q"


def test_a_layer_that_no_data_reach_is_rounded_and_said(module: Any) -> None:
    zeros = np.zeros((3, 12, 24), np.float32)
    context = PassContext(calibration=Calibration(lambda: [{"x": zeros}], "test"))
    small = QuantizeWeights(solver="gptq").apply(module, context)
    alike = QuantizeWeights(solver="mse").apply(module, PassContext())
    np.testing.assert_array_equal(tensors(small)["q"].decode(), tensors(alike)["q"].decode())
    assert any("0 in all calibration data" in note.message for note in context.notes)


def test_a_block_of_zeros_decodes_to_zeros(module: Any, context: Make) -> None:
    from fewbits.passes.layers import Replacement, replace_layers

    def hollow(layer: Any) -> Replacement | None:
        weight = layer.weight.copy()
        weight[3, :8] = 0
        return Replacement(weight) if layer.name == "q" else None

    holes = replace_layers(module, hollow)
    for solver in ("rtn", "mse", "gptq"):
        small = QuantizeWeights(group_size=8, solver=solver).apply(holes, context())
        assert np.isfinite(tensors(small)["q"].decode()).all()
        if solver != "gptq":  # which may correct there for errors elsewhere
            assert (tensors(small)["q"].decode()[3, :8] == 0).all()


def test_a_form_that_saves_nothing_is_not_taken(module: Any) -> None:
    context = PassContext()
    made = QuantizeWeights(num_bits=4, group_size=1, scale_storage="float32")
    small = made.apply(module, context)
    assert not tensors(small)
    assert all("no gain" in note.message for note in context.notes)


def test_the_same_input_gives_the_same_bytes(module: Any, context: Make) -> None:
    first, second = (
        QuantizeWeights(solver="gptq", group_size=8).apply(module, context()) for _ in range(2)
    )
    for name, tensor in tensors(first).items():
        other = tensors(second)[name]
        assert tensor.packed.tobytes() == other.packed.tobytes()
        assert tensor.scales.values().tobytes() == other.scales.values().tobytes()
    assert math.isfinite(error(module, first, context()))
